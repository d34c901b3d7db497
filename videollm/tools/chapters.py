"""Chapters: the parts of which a video consists, from what is told of it.

Neighbouring narrations of which the words are most alike become one, until few enough parts are left and none is very
short: parts meet where what is told changes most.

Source: Hearst, "TextTiling" (1997), for boundaries where the vocabulary changes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path

from videollm.media.source import Limits
from videollm.moments.moment import Moment
from videollm.tools.narrate import LONG_FILE, Narration, Progress, clock, narrate
from videollm.tools.narrators import Narrator

MOST = 8
"""How many parts a video has at most."""
LEAST_SECONDS = 4.0
"""How long a part is at least, unless the video is shorter."""

_SAYS_NOTHING = frozenset(("a", "an", "the", "and", "or", "of", "in", "on", "at", "to", "is", "are", "it", "its"))


@dataclass(frozen=True)
class Chapter:
    """A part of a video; its title is what is told of it for the longest time."""

    start_seconds: float
    end_seconds: float
    title: str

    def __str__(self) -> str:
        """For example ``[0:12-0:30] A red circle moves left.``"""
        return f"[{clock(self.start_seconds)}-{clock(self.end_seconds)}] {self.title}"


def chapters(
    video: Path,
    narrator: Narrator,
    *,
    most: int = MOST,
    least_seconds: float = LEAST_SECONDS,
    limits: Limits = LONG_FILE,
    progress: Progress | None = None,
) -> list[Chapter]:
    """The parts of a video, from a narration of all of it.

    Raises:
        MediaError: the video cannot be read.
    """
    return parts_of(narrate(video, narrator, limits=limits, progress=progress), most=most, least_seconds=least_seconds)


def chapters_of_moments(
    moments: Sequence[Moment], *, most: int = MOST, least_seconds: float = LEAST_SECONDS
) -> list[Chapter]:
    """The parts of a video whose windows an index holds, in their order; a window tells of the time up to the next."""
    ends = [*(moment.start_seconds for moment in moments[1:]), *(moment.end_seconds for moment in moments[-1:])]
    told = (
        Narration(moment.start_seconds, end, moment.narration or moment.sound)
        for moment, end in zip(moments, ends, strict=True)
        if moment.narration or moment.sound
    )
    return parts_of(told, most=most, least_seconds=least_seconds)


@dataclass(eq=False)
class _Part:
    told: list[Narration]
    words: Counter[str]

    @property
    def seconds(self) -> float:
        return self.told[-1].end_seconds - self.told[0].start_seconds


def parts_of(narrations: Iterable[Narration], *, most: int, least_seconds: float) -> list[Chapter]:
    """Narrations joined to at most ``most`` parts.

    Raises:
        ValueError: for less than one part.
    """
    if most < 1:
        raise ValueError(f"a video has at least 1 part, asked for {most}")
    parts = [_Part([one], _words(one.text)) for one in narrations]
    likeness = [_cosine(a.words, b.words) for a, b in pairwise(parts)]
    while len(parts) > 1:
        short = [place for place, part in enumerate(parts) if part.seconds < least_seconds]
        # All seams, or, once there are few enough parts, those of the shortest one.
        seams = range(len(likeness))
        if len(parts) <= most:
            if not short:
                break
            least = min(short, key=lambda place: parts[place].seconds)
            seams = range(max(least - 1, 0), min(least + 1, len(likeness)))
        seam = max(seams, key=lambda place: (likeness[place], -parts[place].seconds - parts[place + 1].seconds))
        parts[seam : seam + 2] = [
            _Part(parts[seam].told + parts[seam + 1].told, parts[seam].words + parts[seam + 1].words)
        ]
        del likeness[seam]
        for place in (seam - 1, seam):
            if 0 <= place < len(likeness):
                likeness[place] = _cosine(parts[place].words, parts[place + 1].words)
    return [Chapter(part.told[0].start_seconds, part.told[-1].end_seconds, _title(part.told)) for part in parts]


def _title(told: Sequence[Narration]) -> str:
    lasting: dict[str, float] = defaultdict(float)
    for one in told:
        lasting[one.text] += one.end_seconds - one.start_seconds
    return max(lasting, key=lambda text: lasting[text])


def _words(text: str) -> Counter[str]:
    return Counter(word for word in re.findall(r"[^\W_]+", text.lower()) if word not in _SAYS_NOTHING)


def _cosine(a: Counter[str], b: Counter[str]) -> float:
    if not a or not b:
        return 1.0 if a == b else 0.0
    both = sum(count * b[word] for word, count in a.items())
    return both / sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
