"""What media files become: frames with seconds, sound with its own rate. Plain numpy, self-checking.

Notation: T frames, H W pixels, C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Frames:
    """Upright RGB frames with square pixels.

    Attributes:
        pixels: uint8 ``(T, H, W, 3)``.
        seconds: float64 ``(T,)``, the presentation time of each frame from the start of the file, never decreasing.
        duration_seconds: how long the source lasts (0 for a still image).
        of_frames: how many the source shows in that time, these among them; None where nobody counted.
    """

    pixels: np.ndarray
    seconds: np.ndarray
    duration_seconds: float
    of_frames: int | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[-1] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 (T, H, W, 3), found {self.pixels.dtype} {self.pixels.shape}")
        if self.seconds.shape != (len(self.pixels),) or self.seconds.dtype != np.float64:
            raise ValueError(
                f"seconds must be float64 ({len(self.pixels)},), found {self.seconds.dtype} {self.seconds.shape}"
            )
        if len(self.seconds) == 0:
            raise ValueError("Frames needs at least one frame")
        if not np.isfinite(self.seconds).all() or (np.diff(self.seconds) < 0).any():
            raise ValueError("seconds must be finite and never decrease")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        t, h, w, _ = self.pixels.shape
        return f"Frames({t} x {w}x{h}, {self.seconds[0]:.3f}-{self.seconds[-1]:.3f} s of {self.duration_seconds:.3f} s)"


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound at its own rate and channels.

    Attributes:
        samples: float32 ``(C, N)``, nominally in [-1, 1].
        rate_hz: samples a second.
        start_seconds: presentation time of the first sample.
    """

    samples: np.ndarray
    rate_hz: int
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(f"samples must be float32 (C, N), found {self.samples.dtype} {self.samples.shape}")
        if self.samples.shape[0] < 1 or self.samples.shape[1] < 1:
            raise ValueError(f"Waveform needs at least one channel and one sample, found {self.samples.shape}")
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz must be positive, found {self.rate_hz}")

    @property
    def duration_seconds(self) -> float:
        return self.samples.shape[1] / self.rate_hz

    def __repr__(self) -> str:
        c, n = self.samples.shape
        return f"Waveform({c} channels, {n} samples at {self.rate_hz} Hz, {self.duration_seconds:.3f} s)"


@dataclass(frozen=True, eq=False)
class Clip:
    """One opened media file: what can be seen of it and what can be heard.

    A clip without sound, or without pictures, is a value (``None``), not an error.

    Attributes:
        name: what the user calls it (the file name).
        kind: ``"video"``, ``"image"`` or ``"audio"``.
        content_hash: hex digest of the file's bytes together with what was read of it; equal media have equal hashes.
        duration_seconds: of the longest stream (0 for a still image).
        frames: what was decoded of the pictures, or None where there are none.
        waveforms: what was decoded of the sound: one piece that holds all of a short sound, or, for a long one, a piece
            around each window. None where the file has no sound.
        windows_seconds: the (start, end) stretches of the sound that are to be heard, each inside one piece.
        notes: sentences for the user about what could not be read, e.g. where a file is cut off.
    """

    name: str
    kind: str
    content_hash: str
    duration_seconds: float
    frames: Frames | None = None
    waveforms: tuple[Waveform, ...] | None = None
    windows_seconds: tuple[tuple[float, float], ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.kind not in ("video", "image", "audio"):
            raise ValueError(f"kind must be video, image or audio, found {self.kind!r}")
        if self.frames is None and not self.waveforms:
            raise ValueError("a Clip needs frames or a waveform")
        if (self.waveforms is None) != (not self.windows_seconds):
            raise ValueError("windows_seconds says what is heard of waveforms: give both or neither")
