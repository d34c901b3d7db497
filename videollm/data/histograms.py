"""Distributions as one picture, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from videollm.media.write import atomic

PANEL_PX = (520, 300)
BINS = 30
_INK, _PALE, _BAR = (40, 40, 40), (215, 215, 215), (58, 110, 165)


def draw_histograms(path: str | Path, panels: Mapping[str, Sequence[float]]) -> None:
    """Write a PNG with one histogram for each title, two in a row.

    Args:
        path: of the picture.
        panels: title and unit -> values; none at all is drawn as such.
    """
    from PIL import Image, ImageDraw, ImageFont

    width, height = PANEL_PX
    columns = min(2, len(panels))
    picture = Image.new("RGB", (width * columns, height * math.ceil(len(panels) / columns)), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    for place, (title, values) in enumerate(panels.items()):
        x, y = place % columns * width, place // columns * height
        left, top, right, bottom = x + 60, y + 40, x + width - 25, y + height - 40
        pen.text((left, y + 12), title, _INK, font=large)
        if not len(values):
            pen.text((left, (top + bottom) // 2), "none", _INK, font=small)
            continue
        heights, edges = bins(values)
        for share in (0.5, 1.0):
            level = bottom - share * (bottom - top)
            pen.line((left, level, right, level), _PALE)
            pen.text((left - 8, level), f"{heights.max() * share:,.4g}", _INK, font=small, anchor="rm")
        step = (right - left) / len(heights)
        for index, count in enumerate(heights.tolist()):
            if count:
                tall = max(1.0, count / heights.max() * (bottom - top))
                pen.rectangle((left + index * step, bottom - tall, left + (index + 1) * step - 1, bottom), _BAR)
        pen.line((left, bottom, right, bottom), _INK)
        for share in (0.0, 0.5, 1.0):
            value = edges[0] + share * (edges[-1] - edges[0])
            pen.text((left + share * (right - left), bottom + 6), f"{value:,.4g}", _INK, font=small, anchor="ma")
        middle = float(np.median(values))
        at = left + (middle - edges[0]) / (edges[-1] - edges[0]) * (right - left)
        pen.line((at, top, at, bottom), (200, 60, 40))
        pen.text((right, y + 14), f"{len(values):,} values, median {middle:,.4g}", _INK, font=small, anchor="ra")
    with atomic(path) as temporary, temporary.open("wb") as file:
        picture.save(file, "PNG")


def bins(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Counts int64 ``(n,)`` and edges float64 ``(n + 1,)`` of a histogram: whole numbers get bins of whole width."""
    numbers = np.asarray(values, np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if (numbers == numbers.round()).all():
        wide = max(1, math.ceil((high - low + 1) / BINS))
        edges = np.arange(low - 0.5, high + 0.5 + wide, wide)
    else:
        edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    counts, edges = np.histogram(numbers, edges)
    return counts, edges
