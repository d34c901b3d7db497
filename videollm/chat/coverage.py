"""What of a clip, or of a long video, the model was shown: frames and seconds, of how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from videollm.clips import Clip

if TYPE_CHECKING:
    from videollm.chat.timeline import Stretch


@dataclass(frozen=True)
class ClipCoverage:
    """What of one clip the model was shown.

    Attributes:
        name: of the clip.
        kind: ``"video"``, ``"image"`` or ``"audio"``.
        duration_seconds: of the clip.
        frames: how many pictures were seen.
        seen_seconds: presentation times of the first and the last of them; None where nothing was seen.
        heard_seconds: how much of the sound was heard, overlaps counted once.
        has_sound: whether the clip has sound.
        notes: what could not be read of the file.
        of_frames: how many pictures the clip has; None where nobody counted.
        looked_seconds: how much of it lies in the stretches that were shown of it; None: it was shown whole.
        told_seconds: how much of it a tool told of in words, where nothing of it was shown.
    """

    name: str
    kind: str
    duration_seconds: float
    frames: int
    seen_seconds: tuple[float, float] | None
    heard_seconds: float
    has_sound: bool
    notes: tuple[str, ...] = ()
    of_frames: int | None = None
    looked_seconds: float | None = None
    told_seconds: float = 0.0

    @property
    def sentence(self) -> str:
        """For example ``saw 16 of 96 frames of cut.mp4 (0.0-3.8 of 4.0 s), heard 4.0 s of 4.0 s``; of a long video
        ``saw 24 of 86400 frames of talk.mp4 (6.0 of 3600.0 s), heard 6.0 s of 3600.0 s``; of one that a tool told of
        ``was told of 10.0 s of 3600.0 s of talk.mp4``.
        """
        total = f"{self.duration_seconds:.1f} s"
        heard = f"heard {self.heard_seconds:.1f} s of {total}"
        if self.told_seconds:
            text = f"was told of {self.told_seconds:.1f} s of {total} of {self.name}"
        elif self.kind == "audio":
            text = f"{heard} of {self.name}"
        elif self.seen_seconds is None:
            text = f"saw nothing of {self.name}"
        elif self.kind == "image":
            text = f"saw the image {self.name}"
        else:
            first, last = self.seen_seconds
            where = f"{first:.1f}-{last:.1f}" if self.looked_seconds is None else f"{self.looked_seconds:.1f}"
            of = "" if self.of_frames is None else f" of {self.of_frames}"
            plural = "" if (self.of_frames or self.frames) == 1 else "s"
            text = f"saw {self.frames}{of} frame{plural} of {self.name} ({where} of {total})"
            if self.heard_seconds:
                text += f", {heard}"
            elif not self.has_sound:
                text += ", which has no sound"
            else:
                text += ", did not hear its sound" + ("" if self.looked_seconds else ": this model has no ear")
        return "; ".join((text, *self.notes))


def covered(clip: Clip, *, seen: bool, heard: bool) -> ClipCoverage:
    """What was shown of a clip."""
    frames = clip.frames if seen else None
    return ClipCoverage(
        name=clip.name,
        kind=clip.kind,
        duration_seconds=float(clip.duration_seconds),
        frames=0 if frames is None else len(frames),
        seen_seconds=None if frames is None else (float(frames.seconds[0]), float(frames.seconds[-1])),
        # A codec pads the end of a sound: no more is said to be heard than the clip lasts.
        heard_seconds=min(_heard_seconds(clip), float(clip.duration_seconds)) if heard else 0.0,
        has_sound=clip.waveforms is not None,
        notes=clip.notes,
        of_frames=None if frames is None else frames.of_frames,
    )


def covered_in_stretches(whole: ClipCoverage, shown: Mapping[Stretch, ClipCoverage]) -> ClipCoverage:
    """What was shown of a video in stretches, as clips of their own, taken together.

    Args:
        whole: what was shown of it besides: nothing, or frames of all of it.
        shown: the stretches.
    """
    ends = [whole.seen_seconds] if whole.seen_seconds else []
    ends += [
        (at[0] + part.seen_seconds[0], at[0] + part.seen_seconds[1]) for at, part in shown.items() if part.seen_seconds
    ]
    notes = dict.fromkeys(note for part in (whole, *shown.values()) for note in part.notes)
    heard_seconds = whole.heard_seconds + sum(part.heard_seconds for part in shown.values())
    return replace(
        whole,
        kind="audio" if not ends and heard_seconds else whole.kind,
        frames=whole.frames + sum(part.frames for part in shown.values()),
        seen_seconds=(min(first for first, _ in ends), max(last for _, last in ends)) if ends else None,
        heard_seconds=min(heard_seconds, whole.duration_seconds),
        has_sound=whole.has_sound or any(part.has_sound for part in shown.values()),
        notes=tuple(notes),
        looked_seconds=None if whole.seen_seconds else length_of(list(shown)),
    )


def _heard_seconds(clip: Clip) -> float:
    """How much of a clip's sound lies in its windows: overlaps counted once, and no more than there are samples."""
    pieces = [(w.start_seconds, w.start_seconds + w.duration_seconds) for w in clip.waveforms or ()]
    return length_of([
        (max(start, low), min(end, high))
        for start, end in clip.windows_seconds
        for low, high in pieces
        if min(end, high) > max(start, low)
    ])  # fmt: skip


def length_of(stretches: Sequence[tuple[float, float]]) -> float:
    """How long stretches are together, overlaps counted once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(stretches):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
