"""Test media whose frames carry their own number: eight black or white blocks, so that identity survives encoding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from videollm.clips import Clip, Waveform
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling

ALL_FRAMES = FrameSampling("uniform", frames=10_000)
SOUND = SoundSampling()


def numbered_frames(count: int, height: int = 48, width: int = 64, first: int = 0) -> np.ndarray:
    """uint8 (T, H, W, 3): the number in bits along the top half, a moving grey ramp below."""
    block = width // 8
    pixels = np.zeros((count, height, width, 3), np.uint8)
    ramp = np.linspace(40, 200, width).astype(np.uint8)
    for i in range(count):
        for bit in range(8):
            if (first + i) >> bit & 1:
                pixels[i, : height // 2, bit * block : (bit + 1) * block] = 255
        pixels[i, height // 2 :] = np.roll(ramp, 2 * i)[None, :, None]
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """The number that a decoded frame carries."""
    height, width = pixels.shape[:2]
    block = width / 8
    return sum(1 << b for b in range(8) if pixels[height // 4, int((b + 0.5) * block)].mean() > 128)


def numbers_of(clip: Clip) -> list[int]:
    assert clip.frames is not None
    return [number_of(pixels) for pixels in clip.frames.pixels]


def smooth_noise(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 (H, W, 3) without symmetry, so that every turn and flip shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3)).astype(np.float64)
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 4, width)
    tall = np.stack([[np.interp(rows, range(4), coarse[:, j, c]) for c in range(3)] for j in range(5)])  # 5, 3, H
    wide = np.stack([[np.interp(columns, range(5), tall[:, c, y]) for c in range(3)] for y in range(height)])  # H, 3, W
    return wide.transpose(0, 2, 1).round().astype(np.uint8)


def tones(seconds: float, rate_hz: int = 44100, channels: int = 2, start_seconds: float = 0.0) -> Waveform:
    """A sweep, other in each channel, that any codec keeps well, and of which every second is unlike the others."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    rows = [0.3 * np.sin(2 * np.pi * (200 * (c + 1) * t + 20 * t**2)) for c in range(channels)]
    return Waveform(np.array(rows, np.float32), rate_hz, start_seconds)


def lag_of(found: np.ndarray, wanted: np.ndarray, most: int = 3000) -> tuple[int, float]:
    """By how many samples `found` is late against `wanted`, and the correlation there."""
    n = min(len(found), len(wanted)) - 2 * most
    middle = wanted[most : most + n] - wanted[most : most + n].mean()
    size = 1 << (len(found) + n).bit_length()
    products = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(middle, size)), size)[: 2 * most]
    at = int(products.argmax())
    piece = found[at : at + n]
    return at - most, float(np.corrcoef(piece, middle)[0, 1])


def everything(path: Path, **options: object) -> Clip:
    """All frames and the published sound of a file, read in this process."""
    return read_clip(path, **({"frames": ALL_FRAMES, "sound": SOUND} | options))  # type: ignore[arg-type]


QUARTER = Fraction(1, 4)
