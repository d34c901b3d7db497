"""Where shots begin: hard cuts, from how the colours of the whole picture change.

A cut is where the colour histogram changes much, and much more than it does around it: so a camera or a thing that
moves, or a light that flickers, is none.

Source: Zhang et al., "Automatic partitioning of full-motion video" (1993), for differences of histograms; the ratio to
the pairs around is that of PySceneDetect's AdaptiveDetector.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LOOKED_AT_HZ = 4.0
"""Frames a second that are compared: a cut is found to a quarter of a second."""
LOOKED_AT_PX = 32
LEAST_CHANGE, LEAST_RATIO = 0.055, 4.0
"""Of the histogram, 0 to 1, and of that to the median of the pairs around."""
PAIRS_AROUND = 3
LEAST_SECONDS = 1.0
"""A shot that would be shorter belongs to the one before."""
LEVELS = 6


def cuts(frames: Iterable[tuple[float, np.ndarray]]) -> list[float]:
    """When shots begin, apart from the first: the second of the first frame after each cut.

    Args:
        frames: second and pixels, uint8 ``(H, W, 3)``, small ones, a few a second; one at a time is held.
    """
    seconds: list[float] = []
    changes: list[float] = []
    before: np.ndarray | None = None
    for second, pixels in frames:
        histogram = colour_histograms(pixels[None])[0]
        if before is not None:
            seconds.append(second)
            changes.append(float(np.abs(histogram - before).sum()) / 2)
        before = histogram
    found: list[float] = []
    for place, change in enumerate(changes):
        around = changes[max(0, place - PAIRS_AROUND) : place] + changes[place + 1 : place + 1 + PAIRS_AROUND]
        usual = float(np.median(around)) if around else 0.0
        is_cut = change >= LEAST_CHANGE and change >= LEAST_RATIO * usual
        if is_cut and seconds[place] - (found[-1] if found else 0.0) >= LEAST_SECONDS:
            found.append(seconds[place])
    return found


def colour_histograms(pixels: np.ndarray) -> np.ndarray:
    """Shares of colours, float32 ``(T, 6, 6, 6)``, each shared with its neighbours, so that a small change stays small.

    Args:
        pixels: uint8 or float ``(T, H, W, 3)``, 0 to 255.
    """
    levels = np.minimum((pixels / 256.0 * LEVELS).astype(np.int64), LEVELS - 1)
    codes = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    counted = np.stack([np.bincount(code.ravel(), minlength=LEVELS**3) for code in codes]).astype(np.float32)
    histograms = counted.reshape(-1, LEVELS, LEVELS, LEVELS)
    for axis in (1, 2, 3):
        spread = histograms * 0.6
        for shift in (-1, 1):
            spread += 0.2 * np.roll(histograms, shift, axis=axis)
        histograms = spread
    return histograms / histograms.sum((1, 2, 3), keepdims=True)
