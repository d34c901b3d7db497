"""What can be computed from any pixels and any samples: the truth for clips in which nothing was drawn.

Two uses: labels of training clips that hold no drawn thing (noise, textures, clutter, unknown shapes), and the
estimator that says what is true of a real clip when `videollm evaluate --media` scores answers about it. It is never
used to answer a question. Pure numpy. Every judgement comes with a margin: 0 means "on the boundary, do not ask".

Notation: T frames, H W pixels, N samples.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from videollm.media.shots import colour_histograms

COLOURS = ("black", "gray", "white", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

DARK_BELOW = 80.0  # mean luma, 0-255
BRIGHT_FROM = 150.0
SILENT_BELOW_DB = -60.0
LOUD_FROM_DB = -26.0
NOISY_FROM_FLATNESS = 0.22
STILL_BELOW = 0.012  # shares of the picture's longer side a second, for pans and for the rim of a zoom
MOVES_FROM_SHARE = 0.004  # of the picture, changed by more than 5 levels within about 0.9 s

Brightness = Literal["dark", "medium", "bright"]
Camera = Literal["still", "left", "right", "up", "down", "in", "out", "unclear"]
Loudness = Literal["silent", "quiet", "loud"]
Tonality = Literal["tonal", "noisy"]

# --- pictures -------------------------------------------------------------------------------------------------------


def colour_names(pixels: np.ndarray) -> np.ndarray:
    """The colour name of each pixel, as an index into `COLOURS`.

    Rule, with V = max/255, C = (max - min)/255, S = C/V and hue in degrees:
    black: V < 0.16, or nearly colourless and V < 0.22. Nearly colourless (S < 0.17 or C < 0.08): white from V 0.80,
    else gray. Hues: red 345-14, orange 14-42, yellow 42-68, green 68-172, blue 172-258 (cyan is split at 172), purple
    258-310, pink 310-345. Light red (345-14, S < 0.60, V >= 0.65) is pink. Brown: hue 8-42 and dark (V < 0.68) or pale
    (S < 0.48), and hue 42-55 with V < 0.50.

    Args:
        pixels: uint8 ``(..., 3)`` RGB.

    Returns:
        uint8 ``(...)``.
    """
    rgb = pixels.astype(np.float32) / 255.0
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value, low = rgb.max(-1), rgb.min(-1)
    chroma = value - low
    saturation = chroma / np.maximum(value, 1e-6)
    safe = np.maximum(chroma, 1e-6)
    hue = np.where(
        value == red,
        ((green - blue) / safe) % 6.0,
        np.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue = hue * 60.0
    colourless = (saturation < 0.17) | (chroma < 0.08)
    reddish = (hue < 14) | (hue >= 345)
    rules = [
        ("black", (value < 0.16) | (colourless & (value < 0.22))),
        ("white", colourless & (value >= 0.80)),
        ("gray", colourless),
        ("brown", (hue >= 8) & (hue < 42) & ((value < 0.68) | (saturation < 0.48))),
        ("brown", (hue >= 42) & (hue < 55) & (value < 0.50)),
        ("pink", reddish & (saturation < 0.60) & (value >= 0.65)),
        ("red", reddish),
        ("orange", hue < 42),
        ("yellow", hue < 68),
        ("green", hue < 172),
        ("blue", hue < 258),
        ("purple", hue < 310),
    ]
    return np.select(
        [condition for _, condition in rules],
        [np.uint8(COLOURS.index(name)) for name, _ in rules],
        default=np.uint8(COLOURS.index("pink")),
    )


def colour_shares(pixels: np.ndarray) -> dict[str, float]:
    """Share of the picture that each of `COLOURS` fills, over all frames; the shares sum to 1.

    Args:
        pixels: uint8 ``(T, H, W, 3)``. Large pictures are read at every n-th pixel, about 96 to a side.
    """
    step = max(1, min(pixels.shape[1:3]) // 96)
    names = colour_names(pixels[:, step // 2 :: step, step // 2 :: step])
    counts = np.bincount(names.ravel(), minlength=len(COLOURS))
    return {name: float(count) / names.size for name, count in zip(COLOURS, counts, strict=True)}


def main_colour(pixels: np.ndarray) -> tuple[str, float]:
    """The colour that fills most of the picture, and by how much of the picture it leads the second."""
    shares = sorted(colour_shares(pixels).items(), key=lambda item: -item[1])
    return shares[0][0], shares[0][1] - shares[1][1]


def brightness(pixels: np.ndarray) -> tuple[Brightness, float]:
    """Mean luma (Rec. 601, 0-255): dark below 80, bright from 150, else medium.

    Returns:
        The name, and the distance of the mean from the nearest boundary in levels of 255.
    """
    mean = float(_luma(_shrink(pixels, 96)).mean())
    margin = min(abs(mean - DARK_BELOW), abs(mean - BRIGHT_FROM))
    return ("dark" if mean < DARK_BELOW else "bright" if mean >= BRIGHT_FROM else "medium"), margin


def cuts(pixels: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Times of hard cuts: the second of the first frame after each.

    The picture is shrunk to 32 px and cut into blocks of 4 px; each block is looked for in the frame before, up to a
    quarter of the picture away, so that pans, zooms and moving things find themselves again. A cut is where at least
    half of the blocks are not found (mean absolute difference over 14 levels, or over 7 with a change of the colour
    histogram over 0.35), and where this is at least twice as usual as in the three pairs of frames to each side.

    Args:
        pixels: uint8 ``(T, H, W, 3)``; seconds: float ``(T,)``.
    """
    if len(pixels) < 2:
        return []
    small = _shrink(pixels, 32)
    lost, missing = _unexplained(small)
    change = _histogram_change(small)
    found: list[float] = []
    for index in range(len(lost)):
        around = [*range(max(0, index - 3), index), *range(index + 1, min(len(lost), index + 4))]
        usual_lost = float(np.median(lost[around])) if around else 0.0
        usual_missing = float(np.median(missing[around])) if around else 0.0
        usual_change = float(np.median(change[around])) if around else 0.0
        by_pixels = missing[index] >= 0.5 and lost[index] >= 2.0 * usual_lost and missing[index] >= 1.6 * usual_missing
        by_colours = change[index] >= 0.35 and change[index] >= 2.5 * usual_change and lost[index] >= 7.0
        if by_pixels or (by_colours and lost[index] >= 1.7 * usual_lost):
            found.append(float(seconds[index + 1]))
    return found


def camera(pixels: np.ndarray, seconds: np.ndarray, at_cut: list[float] | None = None) -> tuple[Camera, float]:
    """How the whole picture moves: its content to the left, right, up or down, growing (in), shrinking (out), or still.

    Consecutive frames (cuts left out) are brought over each other by trying shifts and then by Gauss-Newton steps of
    shift and zoom with weights that ignore what moves on its own. Still: under 0.012 of the longer side a second.
    "unclear" with margin 0: too little texture, most of the picture not explained by one motion, a slanted pan, or
    fewer than two thirds of the pairs of frames in agreement.

    Args:
        pixels: uint8 ``(T, H, W, 3)``; seconds: float ``(T,)``; at_cut: what `cuts` found, where it is known already.

    Returns:
        The name and a margin of 0 to 1: how far the speed is from the boundary, times how much one direction leads.
    """
    if len(pixels) < 2:
        return "still", 0.0
    times = np.asarray(seconds, dtype=np.float64)
    at_cut = cuts(pixels, times) if at_cut is None else at_cut
    grey = _blur(_luma(_shrink(pixels, 64)))
    speeds = _speeds(grey, times, at_cut, gap_seconds=0.0)
    usable = [speed for speed in speeds if speed is not None]
    slow_or_unclear = float(np.median([abs(speed).max() for speed in usable])) < 0.12 if usable else True
    if slow_or_unclear or len(usable) * 3 < len(speeds) * 2:
        slow = _speeds(grey, times, at_cut, gap_seconds=0.9)  # a longer way shows slow motion better
        usable_slow = [speed for speed in slow if speed is not None]
        if slow and len(usable_slow) * len(speeds) >= len(usable) * len(slow):
            speeds, usable = slow, usable_slow
    if len(usable) * 3 < len(speeds) * 2 or not usable:
        return "unclear", 0.0
    judged = [_name_motion(speed) for speed in usable]
    name, margin = _name_motion(np.median(np.stack(usable), axis=0))
    agreeing = sum(1 for other, _ in judged if other == name)
    if name == "unclear" or agreeing * 3 < len(speeds) * 2:
        return "unclear", 0.0
    return name, margin


def moves(pixels: np.ndarray, seconds: np.ndarray, at_cut: list[float] | None = None) -> tuple[bool, float]:
    """Whether anything in the picture moves or changes, cuts aside.

    The share of the picture (luma, shrunk to 64 px and blurred) that changes by more than 5 levels between frames about
    0.9 s apart, averaged over the clip without cuts: moving from 0.004.

    Returns:
        The judgement, and a margin of 0 to 1: 1 is four times over, or a quarter of, the boundary.
    """
    if len(pixels) < 2:
        return False, 1.0
    times = np.asarray(seconds, dtype=np.float64)
    at_cut = cuts(pixels, times) if at_cut is None else at_cut
    grey = _blur(_luma(_shrink(pixels, 64)))
    shares: list[float] = []
    for first, second in _pairs(times, 0.9):
        if not any(times[first] < cut <= times[second] for cut in at_cut):
            shares.append(float((np.abs(grey[second] - grey[first]) > 5.0).mean()))
    if not shares:
        return False, 0.0
    share = float(np.mean(shares))
    margin = min(1.0, abs(float(np.log2(max(share, 1e-6) / MOVES_FROM_SHARE))) / 2.0)
    return share >= MOVES_FROM_SHARE, margin


# --- sound ----------------------------------------------------------------------------------------------------------


def loudness(samples: np.ndarray, rate: int) -> tuple[Loudness, float]:
    """Root mean square of the loudest half second in dB of full scale: silent below -60, loud from -26, else quiet.

    Args:
        samples: float32 ``(N,)`` mono in [-1, 1]; rate: samples a second.

    Returns:
        The name, and the distance from the nearest boundary in dB.
    """
    level = _loudest_db(samples, rate)
    margin = min(abs(level - SILENT_BELOW_DB), abs(level - LOUD_FROM_DB))
    return ("silent" if level < SILENT_BELOW_DB else "loud" if level >= LOUD_FROM_DB else "quiet"), margin


def tonal(samples: np.ndarray, rate: int) -> tuple[Tonality, float]:
    """Whether the sounding parts are made of tones or of noise, by spectral flatness.

    Flatness (geometric over arithmetic mean of the power spectrum, Hann windows of 64 ms) is taken in bands of 500 Hz,
    so that the colour of a noise does not count, and averaged with the energy of the bands; the median over the windows
    within 20 dB of the loudest is tonal below 0.22. White noise has about 0.55, a pure tone under 0.02.

    Returns:
        The name, and the distance of the flatness from 0.22. Silence has margin 0.
    """
    size = max(64, int(rate * 0.064))
    if len(samples) < size or _loudest_db(samples, rate) < SILENT_BELOW_DB:
        return "noisy", 0.0
    starts = np.arange(0, len(samples) - size + 1, max(1, size // 2))
    windows = samples[starts[:, None] + np.arange(size)[None]].astype(np.float64)
    energy = np.square(windows).mean(1)
    windows = windows[energy >= energy.max() * 0.01]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(size), axis=1))) + 1e-14
    band = max(8, round(500 * size / rate))
    count = min(power.shape[1], round(8000 * size / rate)) // band
    bands = power[:, 2 : 2 + count * band]
    count = bands.shape[1] // band
    bands = bands[:, : count * band].reshape(len(power), count, band)
    flatness = np.exp(np.log(bands).mean(2)) / bands.mean(2)
    weights = bands.sum(2)
    value = float(np.median((flatness * weights).sum(1) / weights.sum(1)))
    return ("noisy" if value >= NOISY_FROM_FLATNESS else "tonal"), abs(value - NOISY_FROM_FLATNESS)


def onsets(samples: np.ndarray, rate: int, rise_db: float = 9.0) -> list[float]:
    """Seconds at which a sound starts: a rise of at least ``rise_db`` over the loudest moment of the 0.1 s before.

    Levels are of windows of 20 ms every 5 ms; the new sound must reach -50 dB of full scale and be within 25 dB of the
    loudest window of all. A sound that is there at 0 starts at 0. A count is clear where 6 and 12 dB give the same.
    """
    hop = max(1, int(rate * 0.005))
    if len(samples) < hop * 8:
        return []
    power = np.square(samples[: len(samples) // hop * hop].astype(np.float64)).reshape(-1, hop).mean(1)
    padded = np.concatenate([power, np.zeros(3)])
    level = 10 * np.log10(np.lib.stride_tricks.sliding_window_view(padded, 4).mean(1) + 1e-12)
    needed = max(-50.0, float(level.max()) - 25.0)
    before = 20  # 0.1 s of hops
    found: list[float] = []
    last = -before
    for index in range(len(level)):
        if level[index] < needed or index - last < before:
            continue
        quiet = level[max(0, index - before - 8) : max(0, index - 8)]
        reached = float(np.median(level[index : index + 8]))
        # The first hops of a file have no past: only silence can be assumed before them.
        if len(quiet) == 0 or (reached >= needed and reached - float(quiet.max()) >= rise_db):
            if len(quiet) == 0 and index > 8:
                continue
            rising = index
            if found and (level[last:index] >= level[last : last + 8].max() - 9.0).all():
                continue  # the same sound, still swelling
            found.append(max(0.0, rising * hop / rate))
            last = index
    return found


# --- inside ---------------------------------------------------------------------------------------------------------


def _loudest_db(samples: np.ndarray, rate: int) -> float:
    """Level of the loudest half second in dB of full scale; -120 for digital silence."""
    if len(samples) == 0:
        return -120.0
    size = min(len(samples), max(1, rate // 2))
    total = np.concatenate([[0.0], np.cumsum(np.square(samples.astype(np.float64)))])
    power = float((total[size:] - total[:-size]).max()) / size
    return 10.0 * float(np.log10(max(power, 1e-12)))


def _luma(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _shrink(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Area average to at most ``longest`` px on the longer side: float32 ``(T, h, w, 3)``, 0-255."""
    _, height, width, _ = pixels.shape
    scale = min(1.0, longest / max(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    if (rows, columns) == (height, width):
        return pixels.astype(np.float32)
    row_edges = np.arange(rows) * height // rows
    column_edges = np.arange(columns) * width // columns
    row_sizes = np.diff([*row_edges.tolist(), height])
    column_sizes = np.diff([*column_edges.tolist(), width])
    shrunk = np.empty((len(pixels), rows, columns, 3), dtype=np.float32)
    for index, picture in enumerate(pixels):  # one by one: a full-size clip as uint32 would not fit memory
        total = np.add.reduceat(picture, row_edges, axis=0, dtype=np.uint32)
        total = np.add.reduceat(total, column_edges, axis=1, dtype=np.uint32)
        shrunk[index] = total / (row_sizes[:, None, None] * column_sizes[None, :, None])
    return shrunk


def _blur(grey: np.ndarray) -> np.ndarray:
    """Two passes of the binomial 1-2-1 in both directions over ``(T, h, w)``."""
    for _ in range(2):
        for axis in (1, 2):
            pad = [(0, 0)] * 3
            pad[axis] = (1, 1)
            wide = np.pad(grey, pad, mode="edge")
            size = grey.shape[axis]
            low, mid, high = (np.take(wide, np.arange(size) + k, axis=axis) for k in range(3))
            grey = (low + 2 * mid + high) / 4
    return grey


def _pairs(times: np.ndarray, gap_seconds: float) -> list[tuple[int, int]]:
    """Pairs of frames at least ``gap_seconds`` apart: each frame with the first one late enough."""
    pairs: list[tuple[int, int]] = []
    for first in range(len(times) - 1):
        second = max(first + 1, int(np.searchsorted(times, times[first] + gap_seconds - 1e-6)))
        if second < len(times) and times[second] > times[first]:
            pairs.append((first, second))
    if not pairs and times[-1] > times[0]:
        pairs = [(0, len(times) - 1)]
    return pairs


def _unexplained(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per pair of frames: mean difference left after moving each block as well as possible, share of lost blocks."""
    count, height, width, _ = small.shape
    block = 4
    rows, columns = height // block, width // block
    if rows == 0 or columns == 0:
        block, rows, columns = 1, height, width
    reach = max(1, max(height, width) // 4)
    high, wide = rows * block, columns * block
    channels = np.ascontiguousarray(np.moveaxis(small, -1, 0))
    mean_of_block = np.repeat(np.eye(columns, dtype=np.float32), block, axis=0) / (3 * block * block)
    best = np.full((count - 1, rows, columns), np.inf, dtype=np.float32)
    for first in range(0, count - 1, _PAIRS_AT_ONCE):
        target = channels[:, first + 1 : first + 1 + _PAIRS_AT_ONCE, :high, :wide]
        pairs = target.shape[1]
        padded = np.pad(channels[:, first : first + pairs], ((0, 0), (0, 0), (reach, reach), (reach, reach)), "edge")
        least = best[first : first + pairs]
        for down in range(0, 2 * reach + 1, 1 if reach <= 8 else 2):
            for right in range(0, 2 * reach + 1):
                difference = target - padded[:, :, down : down + high, right : right + wide]
                total = np.abs(difference, out=difference).sum(0)
                blocks = total.reshape(pairs, rows, block, wide).sum(2) @ mean_of_block
                np.minimum(least, blocks, out=least)
    return best.mean((1, 2)), (best > 14.0).mean((1, 2))


_PAIRS_AT_ONCE = 16
"""Pairs of frames that stay in the processor's cache."""


def _histogram_change(small: np.ndarray) -> np.ndarray:
    """Half the summed difference of colour histograms (6 levels a channel, neighbours shared) of consecutive frames."""
    histograms = colour_histograms(small)
    return np.abs(np.diff(histograms, axis=0)).sum((1, 2, 3)) / 2


def _speeds(grey: np.ndarray, times: np.ndarray, at_cut: list[float], gap_seconds: float) -> list[np.ndarray | None]:
    """Motion of at most 12 pairs of frames as (right, down, rim of the zoom) in longer sides a second, or None."""
    pairs = [
        (first, second)
        for first, second in _pairs(times, gap_seconds)
        if not any(times[first] < cut <= times[second] for cut in at_cut)
    ]
    if len(pairs) > 12:
        pairs = [pairs[i * len(pairs) // 12] for i in range(12)]
    side = max(grey.shape[1:])
    speeds: list[np.ndarray | None] = []
    for first, second in pairs:
        motion = _register(grey[first], grey[second])
        if motion is None:
            speeds.append(None)
            continue
        right, down, zoom = motion
        speeds.append(np.array([right / side, down / side, zoom / 2]) / (times[second] - times[first]))
    return speeds


def _name_motion(speed: np.ndarray) -> tuple[Camera, float]:
    """Name and margin of one (right, down, rim of zoom) speed."""
    right, down, zoom = (float(value) for value in speed)
    sizes = sorted(((abs(right), "x"), (abs(down), "y"), (abs(zoom), "z")), reverse=True)
    fastest = sizes[0][0]
    if fastest < STILL_BELOW:
        return "still", 1.0 - fastest / STILL_BELOW
    lead = 1.0 - sizes[1][0] / fastest
    if lead < 0.3:
        return "unclear", 0.0
    name: Camera
    if sizes[0][1] == "x":
        name = "right" if right > 0 else "left"
    elif sizes[0][1] == "y":
        name = "down" if down > 0 else "up"
    else:
        name = "in" if zoom > 0 else "out"
    return name, min(1.0, fastest / STILL_BELOW - 1.0) * lead


def _register(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float] | None:
    """Shift right and down in px and log zoom that bring ``before`` over ``after``; None where no one motion does."""
    gradient = np.hypot(*np.gradient(after))
    textured = _block_mean(gradient) > 1.0
    plain = _block_mean(np.abs(after - before))
    if textured.mean() < 0.25:
        return (0.0, 0.0, 0.0) if plain.max() < 1.5 else None
    best = _refine(before, after, (0.0, 0.0, 0.0))
    if best[1] > 1.0:
        for zoom in (0.0, -0.12, 0.12, -0.24, 0.24):
            moved, _ = _warp(before, (0.0, 0.0, zoom))
            right, down = _coarse_shift(moved, after)
            candidate = _refine(before, after, (right, down, zoom))
            if candidate[1] < best[1] * 0.97:
                best = candidate
            if best[1] < 1.0:
                break
    motion = best[0]
    moved, inside = _warp(before, motion)
    visible = textured & (_block_mean(inside.astype(np.float32)) > 0.9)
    if visible.sum() < 0.12 * visible.size:
        return None
    left = _block_mean(np.abs(after - moved))
    explained = (left < 2.0) | (left < 0.5 * np.minimum(plain, _block_mean(np.abs(after - after.mean()))))
    if explained[visible].mean() < 0.6:
        return None
    # One mover on a flat ground has texture of its own only: the camera moves where much of the picture says so.
    better = (plain > 1.2) & (left < 0.7 * plain) & (_block_mean(inside.astype(np.float32)) > 0.9)
    if max(abs(motion[0]), abs(motion[1]), abs(motion[2]) * 32) > 0.4 and better.sum() < 0.25 * better.size:
        return None
    return motion


def _block_mean(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape
    rows = np.arange(8) * height // 8
    columns = np.arange(8) * width // 8
    total = np.add.reduceat(np.add.reduceat(picture, rows, axis=0), columns, axis=1)
    sizes = np.diff([*rows.tolist(), height])[:, None] * np.diff([*columns.tolist(), width])[None]
    return total / sizes


def _warp(picture: np.ndarray, motion: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The picture moved (bilinear) and where it has pixels of its own: both ``(h, w)``."""
    right, down, zoom = motion
    height, width = picture.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    scale = np.exp(-zoom)
    y = (np.arange(height) - middle_y - down) * scale + middle_y
    x = (np.arange(width) - middle_x - right) * scale + middle_x
    inside = ((y >= 0) & (y <= height - 1))[:, None] & ((x >= 0) & (x <= width - 1))[None]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.minimum(y.astype(np.int64), height - 2), np.minimum(x.astype(np.int64), width - 2)
    part_y, part_x = (y - top)[:, None], (x - left)[None]
    rows = picture[top] * (1 - part_y) + picture[top + 1] * part_y
    return rows[:, left] * (1 - part_x) + rows[:, left + 1] * part_x, inside


def _coarse_shift(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Shift (right, down) in px by trying all up to a quarter of the picture at half size.

    Differences are capped at 12 levels, so that a high-contrast thing moving on its own outvotes nobody; phase
    correlation was tried first and followed such things.
    """
    height, width = (size // 2 * 2 for size in after.shape)
    old, new = (p[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for p in (before, after))
    rows, columns = new.shape
    reach = max(1, max(rows, columns) // 4 + 1)
    down_reach, right_reach = min(reach, rows // 2), min(reach, columns // 2)
    pad = ((down_reach, down_reach), (right_reach, right_reach))
    wide = np.pad(old, pad, constant_values=np.nan)
    views = np.lib.stride_tricks.sliding_window_view(wide, (rows, columns))
    cost = np.empty(views.shape[:2], dtype=np.float32)
    for index in range(len(views)):
        difference = np.minimum(np.abs(views[index] - new), 12.0)
        cost[index] = np.nanmean(difference, axis=(1, 2))
    down, right = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return 2.0 * (right_reach - int(right)), 2.0 * (down_reach - int(down))


def _refine(
    before: np.ndarray, after: np.ndarray, start: tuple[float, float, float]
) -> tuple[tuple[float, float, float], float]:
    """Gauss-Newton steps with weights against what moves on its own: the motion and the difference it leaves."""
    height, width = after.shape
    y = (np.arange(height) - (height - 1) / 2)[:, None]
    x = (np.arange(width) - (width - 1) / 2)[None]
    motion = np.array(start)
    best, best_left = motion, np.inf
    for _ in range(8):
        moved, inside = _warp(before, (motion[0], motion[1], motion[2]))
        if inside.mean() < 0.3:
            break
        rest = after - moved
        typical = float(np.median(np.abs(rest[inside]))) + 0.5
        left = float(np.minimum(np.abs(rest[inside]), 3 * typical).mean())
        if left < best_left:
            best, best_left = motion, left
        weight = inside / (1 + np.square(rest / (2 * typical)))
        slope_y, slope_x = np.gradient(moved)
        basis = np.stack([-slope_x, -slope_y, -(slope_x * x + slope_y * y)]).reshape(3, -1)
        weighted = basis * weight.ravel()
        system = weighted @ basis.T
        system[np.diag_indices(3)] += 1e-3 * np.diag(system) + 1e-6
        step = np.linalg.solve(system, weighted @ rest.ravel())
        motion = motion + step
        if np.abs(step * [1, 1, 32]).max() < 0.02:
            break
    return (float(best[0]), float(best[1]), float(best[2])), best_left
