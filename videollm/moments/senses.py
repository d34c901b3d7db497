"""What of a query speaks of pictures, and what of sounds: judged by the words in which an index tells of both."""

from __future__ import annotations

import re
from collections.abc import Callable

_BOUNDARY = re.compile(
    r"\s*[,;:]\s+|\.\s+|\s+(?:as well as|followed by|while|with|and|as|when|but|then)\s+", re.IGNORECASE
)
_HEARING = re.compile(
    r"\b(?:hear|hears|heard|hearing|sounds?|sounding|audible|listen|listens|listening)\b", re.IGNORECASE
)
FAMILIAR = 1.0
"""A phrase whose best full-text fit is below has no telling word in common with what the index tells."""


def phrases(text: str) -> list[tuple[int, int]]:
    """Start and end of each phrase of a text, which is cut at commas and conjunctions."""
    found, at = [], 0
    for cut in [*_BOUNDARY.finditer(text), None]:
        start, end = at, len(text) if cut is None else cut.start()
        at = end if cut is None else cut.end()
        if text[start:end].strip():
            found.append((start, end))
    return found


def by_sense(
    query: str,
    familiar: Callable[[str], tuple[float, float]],
    sounds_like: Callable[[str], bool] | None = None,
) -> tuple[str, str]:
    """The words of a query about what is seen, and those about what is heard; one of both may be empty.

    The query is cut into `phrases`. A phrase that says "hear" or "sound" is about a sound; any other is about whatever
    is told with its words.

    Args:
        query: as a person wrote it.
        familiar: of a phrase, how well it fits what is told of pictures and of sounds, at best.
        sounds_like: decides about phrases that fit neither; None: they are about the other sense than the phrases that
            fit, and where none fits, about both.

    Returns:
        two texts; where nothing can be told apart, both are the query.
    """
    cut = phrases(query)
    heard = [_is_heard(query[start:end], familiar, sounds_like) for start, end in cut]
    known = {one for one in heard if one is not None}
    if not known:
        return query, query
    if len(known) == 1:
        (only,) = known
        heard = [(not only if sounds_like is None else only) if one is None else one for one in heard]
    told = []
    for sense in (False, True):
        mine = [place for place, one in enumerate(heard) if one is sense]
        if not mine:
            told.append("")
        elif len(mine) == len(cut):
            told.append(query)
        elif mine == list(range(mine[0], mine[-1] + 1)):  # neighbours keep the words between them
            told.append(query[cut[mine[0]][0] : cut[mine[-1]][1]])
        else:
            told.append(", ".join(query[start:end] for start, end in (cut[place] for place in mine)))
    return told[0], told[1]


def _is_heard(
    phrase: str, familiar: Callable[[str], tuple[float, float]], sounds_like: Callable[[str], bool] | None
) -> bool | None:
    if _HEARING.search(phrase):
        return True
    seen, heard = familiar(phrase)
    if max(seen, heard) >= FAMILIAR:
        return heard > seen
    return None if sounds_like is None else sounds_like(phrase)
