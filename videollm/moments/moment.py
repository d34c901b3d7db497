"""A moment: a stretch of a video, what was said of it, and vectors by which it is found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

VectorKind = Literal["seen", "heard", "long"]
"""What a vector is of: the pictures of a window, its sound, or a long stretch around it."""
VECTOR_KINDS: tuple[VectorKind, ...] = ("seen", "heard", "long")

Reason = Literal["narrated", "heard in words", "seen", "heard", "long"]
"""Why a moment was found: by the words of its narration or of its sound, or by a vector."""


@dataclass(frozen=True, eq=False)
class Moment:
    """A window of a video.

    Attributes:
        start_seconds, end_seconds: of the window.
        narration: what is seen, in words; empty if nobody has told.
        sound: what is heard, in words.
        vectors: float32 ``(D,)`` by kind; they are compared by their angle.
    """

    start_seconds: float
    end_seconds: float
    narration: str = ""
    sound: str = ""
    vectors: Mapping[VectorKind, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < self.end_seconds or not math.isfinite(self.end_seconds):
            raise ValueError(f"a moment needs 0 <= start < end, found {self.start_seconds} to {self.end_seconds}")
        for kind, vector in self.vectors.items():
            if kind not in VECTOR_KINDS or vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
                raise ValueError(f"the vector {kind!r} must be finite numbers (D,), not all zero")


@dataclass(frozen=True)
class Video:
    """A video of an index.

    Attributes:
        path: of the file, or its address.
        content: names its bytes: a file that was moved or copied has the same, one that was changed another.
        duration_seconds: its length.
        moments: how many windows were stored.
        made_by: what decided what is stored: models and windows. Another value means that it is stored anew.
    """

    path: str
    content: str
    duration_seconds: float
    moments: int
    made_by: str


@dataclass(frozen=True)
class Found:
    """A stretch that a search found.

    Attributes:
        path: the video.
        start_seconds, end_seconds: the stretch: one window, or several that overlap and fit about as well.
        score: from 0 to 1, over all ways in which it was looked for (`videollm.moments.ranking`).
        why: the ways in which it was found, and its rank (from 1) in each.
        narration, sound: in words, of the window that fits best.
    """

    path: str
    start_seconds: float
    end_seconds: float
    score: float
    why: Mapping[Reason, int]
    narration: str
    sound: str
