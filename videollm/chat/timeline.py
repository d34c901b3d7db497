"""A long video in a conversation: each question is shown the moment that fits it best, and segments around what fits.

What is shown is a round of its turn, as if it had been looked at: it is kept while its turn is, forgotten and taken
back with it, and not shown a second time while it is there. So memory holds the stretches that the context has room
for, however long the video is, and a second question about the same part reads its own words only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videollm.chat.calls import AROUND_SECONDS, times_in
from videollm.errors import ConfigError
from videollm.media.sampling import windows

if TYPE_CHECKING:
    from videollm.media.read import Survey

Stretch = tuple[float, float]
Chooser = Callable[[str], Sequence[Stretch]]
"""From words to the stretches that fit them, in seconds of the video, the best first."""

SHARE_OF_PROMPT = 0.5
"""Of what a prompt may have, so much at most goes to the stretches that one question is shown."""
SHORTEST_SECONDS, LONGEST_SECONDS = 10.0, 30.0
"""Of a segment."""
LEAST_LOOK_SECONDS = 2.0
"""A shorter moment is looked at with what is around it."""


@dataclass(frozen=True)
class Fitting:
    """What a question is shown of a long video.

    Attributes:
        shown: stretches, in their order, without those that are there already.
        moment: the one that was found to fit the words best, which is among what is shown or there; None where none
            was, or where the words name a time.
    """

    shown: tuple[Stretch, ...]
    moment: Stretch | None = None


@dataclass(frozen=True)
class Timeline:
    """A video as segments.

    Attributes:
        video: its name in the conversation.
        file: where it is.
        segments: (start, end) of each, in seconds, in their order.
        choose: finds moments by words; where it finds none, or is None, segments are taken evenly.
        survey: of the file, so that a stretch of an hour is read as fast as one of a minute.

    Raises:
        ConfigError: segments of another length than 10 to 30 seconds make no sense, or there are none.
    """

    video: str
    file: Path
    segments: tuple[Stretch, ...]
    choose: Chooser | None = None
    survey: Survey | None = None

    @classmethod
    def of(
        cls,
        video: str,
        file: Path,
        duration_seconds: float,
        *,
        survey: Survey | None = None,
        segment_seconds: float = 20.0,
        choose: Chooser | None = None,
    ) -> Timeline:
        """A video of some length in segments of 10 to 30 seconds; the last may be shorter."""
        if not SHORTEST_SECONDS <= segment_seconds <= LONGEST_SECONDS:
            raise ConfigError(f"a segment lasts 10 to 30 seconds, found {segment_seconds:g}")
        if not duration_seconds > 0:
            raise ConfigError(f"{video} has no length in time; show it as it is")
        return cls(video, file, tuple(windows(duration_seconds, segment_seconds, segment_seconds)), choose, survey)

    @property
    def duration_seconds(self) -> float:
        return self.segments[-1][1]

    @property
    def frames(self) -> int:
        """How many pictures the file shows; 0 for a sound, or where nobody counted."""
        return 0 if self.survey is None else self.survey.frames

    @property
    def sentence(self) -> str:
        """For example ``talk.mp4 lasts 3600.0 s: each question is shown what fits it of its 86400 frames``."""
        of = f"its {self.frames} frames" if self.frames else "its sound"
        return f"{self.video} lasts {self.duration_seconds:.1f} s: each question is shown what fits it of {of}"

    def fitting(self, question: str, most: int, without: Iterable[Stretch] = ()) -> Fitting:
        """Stretches for a question: all segments where there is room; else the moment that it names by its time, or
        that fits its words best, by itself, looked at closely, and as far as there is room the segments that hold it
        and others that fit.

        Args:
            question: the user's words.
            most: how many there is room for.
            without: stretches that are shown already; they count as chosen, and so does what lies in one of them.
        """
        there = list(without)
        named = self._named(question)
        found = named or ([] if self.choose is None else list(self.choose(question)))
        moment = self._looked_at(found[0]) if found else None
        if len(self.segments) <= most:
            chosen = list(self.segments)
        elif moment is not None:
            chosen = [moment, *self._holding(found)][:most]
        else:  # nothing fits these words, or nobody looked
            step = len(self.segments) / most
            chosen = [self.segments[int((place + 0.5) * step)] for place in range(most)]
        new = (one for one in chosen if not any(start <= one[0] and one[1] <= end for start, end in there))
        return Fitting(tuple(sorted(set(new))), None if named else moment)

    def _named(self, question: str) -> list[Stretch]:
        """The stretch between the times that a question names, or around the one."""
        times = [at for at in times_in(question) if at < self.duration_seconds]
        if not times:
            return []
        around = AROUND_SECONDS if len(times) == 1 else 0.0
        return [(max(0.0, min(times) - around), min(max(times) + around, self.duration_seconds))]

    def _looked_at(self, moment: Stretch) -> Stretch:
        """A moment, no shorter than can be looked at, and no longer than the longest segment."""
        start, end = moment
        around = max(0.0, LEAST_LOOK_SECONDS - (end - start)) / 2
        start = max(0.0, start - around)
        return start, min(end + around, start + LONGEST_SECONDS, self.duration_seconds)

    def _holding(self, stretches: Sequence[Stretch]) -> list[Stretch]:
        """The segments that hold some of the stretches, in the order of these."""
        held = (one for start, end in stretches for one in self.segments if one[0] < end and start < one[1])
        return list(dict.fromkeys(held))
