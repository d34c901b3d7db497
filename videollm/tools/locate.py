"""Where in one video that happens which a question asks about: by search, and by the order of time that it names.

"What happens after the dog barks?" asks about what comes behind the moment that is found for "the dog barks"; "When
does she sit down after the dog barks?" about what fits "she sits down" behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from videollm.moments.moment import Found
from videollm.moments.store import MomentStore

Stretch = tuple[float, float]
Find = Callable[[str, Stretch | None, int], Sequence[Found]]
"""Searches for words, within a stretch or anywhere, so many at most."""

_ORDER = re.compile(
    r"\b(?:(?:right|just|directly|immediately|shortly|soon)\s+)?(after|before|following)\b", re.IGNORECASE
)
_ASKS = frozenset(
    """
    a an the and or of in on at to is are was were be been do does did done what which who whom when where how why that
    this there here it its they them i you we me us can could would will shall please tell show say describe explain
    happen happens happened happening come comes came coming goes went next then right just directly immediately shortly
    soon see seen shown video film clip moment scene part time point event thing things
    """.split()  # noqa: SIM905
)
"""Words of a question that say nothing of what is seen or heard."""


def content_of(text: str) -> str:
    """The words of a question without those that only ask, in their order."""
    return " ".join(word for word in re.findall(r"[^\W_]+", text) if word.lower() not in _ASKS)


def locate(store: MomentStore, path: str, question: str, find: Find, limit: int = 20) -> list[Stretch]:
    """Stretches of a video, the one that is asked about first.

    Args:
        store: holds the video.
        path: of the video.
        question: in words.
        find: searches in it.
        limit: how many at most.
    """
    order = _ORDER.search(question)
    if order is None:
        return _stretches(find(question, None, limit))
    asked, known = content_of(question[: order.start()]), question[order.end() :]
    is_after = order[1].lower() != "before"
    if not content_of(known):
        return _stretches(find(question, None, limit))
    if "," in known and not asked:  # "After the dog barks, what does she do?"
        known, _, rest = known.partition(",")
        asked = content_of(rest)
    anchors = find(known, None, 1)
    if not anchors:
        return []
    start, end = anchors[0].start_seconds, anchors[0].end_seconds
    if asked:
        within = (end, float(10**9)) if is_after else (0.0, start)
        return _stretches(find(asked, within, limit)) if within[0] < within[1] else []
    moments = [(one.start_seconds, one.end_seconds) for one in store.moments(path)]
    beside = [
        one for one in moments if (one[0] >= end - _TOUCH_SECONDS if is_after else one[1] <= start + _TOUCH_SECONDS)
    ]
    nearest = sorted(beside, key=lambda one: one[0] if is_after else -one[1])[:1]
    return [*nearest, (start, end)]


_TOUCH_SECONDS = 0.05


def _stretches(hits: Sequence[Found]) -> list[Stretch]:
    return [(hit.start_seconds, hit.end_seconds) for hit in hits]
