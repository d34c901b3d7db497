"""A long video in a conversation: segments, of which each question is shown those that fit it.

A segment that is shown is a round of its turn, as if it had been looked at: it is kept while its turn is, forgotten and
taken back with it, and not shown a second time while it is there. So memory holds the segments that the context has
room for, however long the video is, and a second question about the same part reads its own words only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from videollm.errors import ConfigError
from videollm.media.sampling import windows

Stretch = tuple[float, float]
Chooser = Callable[[str], Sequence[Stretch]]
"""From words to the stretches that fit them, in seconds of the video, the best first."""

SHARE_OF_PROMPT = 0.5
"""Of what a prompt may have, so much at most goes to the segments of one question."""


@dataclass(frozen=True)
class Timeline:
    """A video as segments.

    Attributes:
        video: its name in the conversation.
        file: where it is.
        segments: (start, end) of each, in seconds, in their order.
        choose: finds stretches by words; where it finds none, or is None, segments are taken evenly.

    Raises:
        ConfigError: segments of another length than 10 to 30 seconds make no sense, or there are none.
    """

    video: str
    file: Path
    segments: tuple[Stretch, ...]
    choose: Chooser | None = None

    @classmethod
    def of(
        cls,
        video: str,
        file: Path,
        duration_seconds: float,
        *,
        segment_seconds: float = 20.0,
        choose: Chooser | None = None,
    ) -> Timeline:
        """A video of some length in segments of 10 to 30 seconds; the last may be shorter."""
        if not 10 <= segment_seconds <= 30:
            raise ConfigError(f"a segment lasts 10 to 30 seconds, found {segment_seconds:g}")
        if not duration_seconds > 0:
            raise ConfigError(f"{video} has no length in time; show it as it is")
        return cls(video, file, tuple(windows(duration_seconds, segment_seconds, segment_seconds)), choose)

    @property
    def sentence(self) -> str:
        """For example ``talk.mp4 lasts 3600.0 s: each question is shown those of its 180 segments that fit it``."""
        count = len(self.segments)
        return (
            f"{self.video} lasts {self.segments[-1][1]:.1f} s: each question is shown those of its {count} "
            f"segment{'' if count == 1 else 's'} that fit it"
        )

    def fitting(self, question: str, most: int, without: Iterable[Stretch] = ()) -> list[Stretch]:
        """Segments for a question, in their order: all where there is room, else those that fit its words best.

        Args:
            question: the user's words.
            most: how many there is room for.
            without: segments that are shown already; they count as chosen.
        """
        there = set(without)
        if len(self.segments) <= most:
            chosen = list(self.segments)
        else:
            chosen = [] if self.choose is None else self._holding(self.choose(question))[:most]
        if not chosen:  # nothing fits these words, or nobody looked
            step = len(self.segments) / most
            chosen = [self.segments[int((place + 0.5) * step)] for place in range(most)]
        return sorted(segment for segment in chosen if segment not in there)

    def _holding(self, stretches: Sequence[Stretch]) -> list[Stretch]:
        """The segments that hold some of the stretches, in the order of these."""
        held = (one for start, end in stretches for one in self.segments if one[0] < end and start < one[1])
        return list(dict.fromkeys(held))
