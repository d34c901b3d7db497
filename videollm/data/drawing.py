"""Pixels of a scene of the world: `render(scene, seconds)` draws it at any moment and any size."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from videollm.data.world import Ground, Scene, Shot, Thing, thing_at

_RGB = {
    "red": (214, 32, 36), "orange": (242, 132, 22), "yellow": (240, 222, 40), "green": (36, 158, 58),
    "blue": (36, 74, 206), "purple": (128, 44, 162), "pink": (246, 138, 184), "white": (244, 244, 244),
    "black": (16, 16, 16), "gray": (128, 128, 128), "brown": (122, 78, 40),
}  # fmt: skip
_GROUND_RGB = {**_RGB, "white": (232, 232, 232), "blue": (70, 110, 160), "green": (86, 128, 92)}

_TEXTURE_PX = 256  # a texture covers 2 x 2 lengths and repeats


def render(scene: Scene, seconds: np.ndarray, long_px: int | None = None) -> np.ndarray:
    """Frames of a scene.

    Args:
        scene: what to draw.
        seconds: ``(T,)`` moments.
        long_px: pixels of the longer side; the scene's own size by default.

    Returns:
        uint8 ``(T, H, W, 3)`` RGB.
    """
    width_px, height_px = scene.width_px, scene.height_px
    if long_px is not None:
        scale = long_px / max(width_px, height_px)
        width_px, height_px = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    unit = 1.0 / max(width_px, height_px)
    xs = (np.arange(width_px, dtype=np.float32) + 0.5) * unit
    ys = (np.arange(height_px, dtype=np.float32) + 0.5) * unit
    out = np.empty((len(seconds), height_px, width_px, 3), np.uint8)
    grain = _Grain(np.random.default_rng([scene.seed, 11]), height_px, width_px)
    still: dict[int, np.ndarray] = {}
    for index, moment in enumerate(np.asarray(seconds, float)):
        shot = scene.shot_at(moment)
        key = id(shot)
        moving = shot.camera != "still" or shot.jitter > 0
        if moving or key not in still:
            x, y = through_camera(shot, moment, xs, ys, width_px * unit, height_px * unit)
            ground = _ground(shot.ground, x, y, unit)
            if not moving:
                still[key] = ground
        else:
            x, y, ground = xs, ys, still[key]
        picture = ground.copy()
        for thing in shot.things:
            if moment >= thing.start_seconds:
                _draw(picture, thing, moment - max(shot.start_seconds, thing.start_seconds), x, y)
        if shot.ground.style == "static":
            picture = np.repeat(np.clip(grain.next() * 64 + 128, 0, 255), 3, -1)
        elif shot.ground.style == "noisy":
            picture += grain.next() * (4 + 8 * shot.ground.strength)
        out[index] = np.clip(picture, 0, 255).astype(np.uint8)
    return out


class _Grain:
    """Noise that differs from frame to frame: windows at random places of one large field, which is drawn once."""

    def __init__(self, rng: np.random.Generator, height_px: int, width_px: int) -> None:
        self.rng, self.height_px, self.width_px = rng, height_px, width_px
        self.field: np.ndarray | None = None

    def next(self) -> np.ndarray:
        """float32 (H, W, 1), standard normal."""
        if self.field is None:
            shape = (self.height_px + 61, self.width_px + 61, 1)
            self.field = self.rng.standard_normal(shape, np.float32)
        y, x = self.rng.integers(0, 62, 2)
        return self.field[y : y + self.height_px, x : x + self.width_px]


def through_camera(
    shot: Shot, moment: float, xs: np.ndarray, ys: np.ndarray, width: float, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """World coordinates of columns and rows of the picture, which is ``width`` x ``height`` lengths large."""
    since = moment - shot.start_seconds
    way = shot.camera_speed * since
    x, y = xs, ys
    if shot.camera == "left":
        x = x + way
    elif shot.camera == "right":
        x = x - way
    elif shot.camera == "up":
        y = y + way
    elif shot.camera == "down":
        y = y - way
    elif shot.camera in ("in", "out"):
        # Into the picture: what is seen grows as (1 + way).
        factor = 1.0 / (1.0 + way)
        if shot.camera == "out":
            factor = (1.0 + way) / (1.0 + shot.camera_speed * (shot.end_seconds - shot.start_seconds))
        cx, cy = width / 2, height / 2
        x, y = cx + (x - cx) * factor, cy + (y - cy) * factor
    if shot.jitter:
        x = x + shot.jitter * np.float32(np.sin(moment * 7.1) + np.sin(moment * 17.3))
        y = y + shot.jitter * np.float32(np.sin(moment * 9.7) + np.sin(moment * 13.9))
    return x, y


def _ground(ground: Ground, x: np.ndarray, y: np.ndarray, unit: float) -> np.ndarray:
    """float32 (H, W, 3), 0 to 255."""
    if ground.colour is None:
        return _sample(_texture(ground.style, ground.seed, ground.strength), x, y, unit)
    rng = np.random.default_rng(ground.seed)
    base = np.array(_GROUND_RGB[ground.colour], np.float32) + rng.uniform(-10, 10, 3).astype(np.float32)
    picture = np.empty((len(y), len(x), 3), np.float32)
    picture[:] = base
    if ground.style == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        slope = np.cos(angle) * (x - 0.5)[None, :] + np.sin(angle) * (y - 0.5)[:, None]
        picture += (slope * 45 * ground.strength)[..., None]
    elif ground.style == "textured":
        cloud = _sample(_texture("cloud", ground.seed, 0.6), x, y, unit).mean(-1, keepdims=True)
        picture += (cloud - cloud.mean()) * (0.35 + 0.25 * ground.strength)
        cells = _sample(_texture("patchwork", ground.seed, 0.5), x, y, unit).mean(-1, keepdims=True)
        picture += (cells - cells.mean()) * 0.15
    return picture


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray, unit: float) -> np.ndarray:
    """Bilinear look-up in a texture that repeats every two lengths, averaged down where the picture is small."""
    step = abs(float(x[-1] - x[0])) / max(len(x) - 1, 1) * _TEXTURE_PX / 2
    while step > 1.5:
        texture = (texture[::2, ::2] + texture[1::2, ::2] + texture[::2, 1::2] + texture[1::2, 1::2]) / 4
        step /= 2
    size = len(texture)
    u, v = (x * size / 2 - 0.5) % size, (y * size / 2 - 0.5) % size
    u0, v0 = u.astype(int) % size, v.astype(int) % size
    fu, fv = (u - np.floor(u))[None, :, None].astype(np.float32), (v - np.floor(v))[:, None, None].astype(np.float32)
    u1, v1 = (u0 + 1) % size, (v0 + 1) % size
    rows0, rows1 = texture[v0], texture[v1]
    rows = rows0 + (rows1 - rows0) * fv
    return rows[:, u0] + (rows[:, u1] - rows[:, u0]) * fu


def _cloud(rng: np.random.Generator, exponent: float, channels: int) -> np.ndarray:
    """Periodic 1/f^exponent noise with zero mean and unit deviation, (S, S, channels)."""
    size = _TEXTURE_PX
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size
    weight = np.where(frequency > 0, np.maximum(frequency, 1.0) ** -exponent, 0.0)
    field = np.empty((size, size, channels), np.float32)
    for c in range(channels):
        spectrum = rng.standard_normal((2, *frequency.shape))
        plane = np.fft.irfft2((spectrum[0] + 1j * spectrum[1]) * weight, s=(size, size))
        field[..., c] = plane / (plane.std() + 1e-9)
    return field


def _polygon(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Corner points of a shape that is none of the world's, around 0 with radius about 1."""
    if kind == "spikes":  # many thin rays: no five-pointed star
        n = int(rng.integers(9, 15))
        radius = np.where(np.arange(2 * n) % 2, 0.45, 1.0)
    elif kind == "hexagon":
        n = int(rng.choice([6, 7, 8]))
        return np.stack([np.cos(a := 2 * np.pi * np.arange(n) / n), np.sin(a)], 1) * [1.0, rng.uniform(0.35, 0.6)]
    elif kind == "bar":
        return np.array([(-1, -0.12), (1, -0.12), (1, 0.12), (-1, 0.12)]) * [1, rng.uniform(0.6, 1.8)]
    elif kind == "arrow":
        return np.array([(-1, -0.2), (0.1, -0.2), (0.1, -0.6), (1, 0), (0.1, 0.6), (0.1, 0.2), (-1, 0.2)])
    elif kind == "moon":
        a, b = np.linspace(-2.2, 2.2, 16), np.linspace(2.0, -2.0, 16)
        outer, inner = np.stack([np.cos(a), np.sin(a)], 1), np.stack([0.75 * np.cos(b) + 0.45, 0.75 * np.sin(b)], 1)
        return np.concatenate([outer, inner])
    else:  # a ragged blob
        n = int(rng.integers(9, 16))
        radius = rng.uniform(0.35, 1.0, n)
        angle = 2 * np.pi * np.arange(n) / n
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    angle = 2 * np.pi * np.arange(len(radius)) / len(radius)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Five colours, often related, of any saturation and brightness: (5, 3) float32."""
    base = rng.uniform(0, 255, 3)
    spread = rng.uniform(10, 160)
    colours = base + rng.uniform(-spread, spread, (5, 3))
    if rng.random() < 0.25:
        colours = colours.mean(1, keepdims=True) + rng.uniform(-8, 8, (5, 3))
    return np.clip(colours * rng.uniform(0.35, 1.15), 0, 255).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _texture(family: str, seed: int, strength: float) -> np.ndarray:
    """A periodic picture without any drawn thing: float32 (S, S, 3), 0 to 255."""
    rng = np.random.default_rng([seed, 3])
    size = _TEXTURE_PX
    palette = _palette(rng)
    if family in ("flat", "static"):
        slope = np.cos(np.linspace(0, 2 * np.pi, size))[:, None, None] * rng.uniform(0, 25)
        return np.clip(palette[0] + np.broadcast_to(slope, (size, size, 1)), 0, 255).astype(np.float32)
    if family == "cloud":
        field = _cloud(rng, 0.9 + 1.1 * strength, 3)
        return np.clip(palette[0] + field * rng.uniform(15, 60), 0, 255)
    if family == "blobs":
        field = _cloud(rng, 2.2, 4)
        chosen = np.argmax(field, -1)
        soft = Image.fromarray(palette[chosen].astype(np.uint8)).filter(ImageFilter.GaussianBlur(1 + 4 * strength))
        return np.asarray(soft, np.float32)
    if family == "stripes":
        waves = rng.integers(1, 9, 2)
        phase = np.arange(size) / size * 2 * np.pi
        wave = np.sin(waves[0] * phase[None, :] + waves[1] * phase[:, None])[..., None]
        return np.clip(palette[0] + (palette[1] - palette[0]) * (wave * 0.5 + 0.5), 0, 255).astype(np.float32)
    if family == "patchwork":
        cells = int(rng.choice([8, 16, 32]))
        grid = palette[rng.integers(0, 5, (cells, cells))] + rng.uniform(-15, 15, (cells, cells, 1))
        picture = np.clip(np.repeat(np.repeat(grid, size // cells, 0), size // cells, 1), 0, 255).astype(np.float32)
        return picture + _cloud(rng, 1.0, 1) * 6
    # clutter: everything at once; unknown: a few clear shapes that are none of the world's
    ground = np.clip(palette[0] + _cloud(rng, 1.5, 1) * rng.uniform(2, 20), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ground, (size, size, 3)).copy())
    draw = ImageDraw.Draw(image)
    number = int(rng.integers(3, 8)) if family == "unknown" else int(rng.integers(25, 70))
    kinds = ("spikes", "hexagon", "bar", "arrow", "moon", "ragged")
    for _ in range(number):
        kind = kinds[int(rng.integers(len(kinds)))]
        radius = rng.uniform(22, 48) if family == "unknown" else rng.uniform(4, 40)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = _polygon(rng, kind) @ turn.T * radius + rng.uniform(0, size, 2)
        colour = tuple(int(v) for v in np.clip(palette[int(rng.integers(5))] + rng.uniform(-25, 25, 3), 0, 255))
        for dx in (-size, 0, size):
            for dy in (-size, 0, size):
                draw.polygon([(float(px + dx), float(py + dy)) for px, py in points], fill=colour)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3))))
    return np.asarray(image, np.float32) + _cloud(rng, 0.7, 1) * rng.uniform(0, 8)


def _draw(picture: np.ndarray, thing: Thing, since: float, x: np.ndarray, y: np.ndarray) -> None:
    """Paint a thing, smooth at its edge, into the picture."""
    cx, cy, size = thing_at(thing, since)
    columns = np.flatnonzero(np.abs(x - cx) <= size * 1.1)
    rows = np.flatnonzero(np.abs(y - cy) <= size * 1.1)
    if len(columns) == 0 or len(rows) == 0:
        return
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    px = (x[left:right] - cx)[None, :] / size
    py = (y[top:bottom] - cy)[:, None] / size
    if thing.motion != "circle" and thing.rotation:
        c, s = np.cos(thing.rotation), np.sin(thing.rotation)
        px, py = c * px + s * py, c * py - s * px
    distance = _distance(thing.shape, px, py)
    edge = abs(float(x[1] - x[0])) / size if len(x) > 1 else 0.05
    alpha = np.clip(0.5 - distance / edge, 0, 1)[..., None].astype(np.float32)
    colour = np.clip(np.array(_RGB[thing.colour]) + 14 * np.array(thing.tint), 0, 255).astype(np.float32)
    patch = picture[top:bottom, left:right]
    patch += (colour - patch) * alpha


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Roughly the signed distance to a shape of radius 1 (negative inside)."""
    if shape == "circle":
        return np.hypot(x, y) - 0.92
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.8
    if shape == "triangle":
        slope = np.sqrt(3) / 2
        return np.maximum(np.maximum(slope * x - y / 2, -slope * x - y / 2), y) - 0.5
    if shape == "cross":
        ax, ay = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(ax - 0.3, ay - 0.95), np.maximum(ax - 0.95, ay - 0.3))
    # star: five points up, the border found along the angle
    angle = np.arctan2(x, -y)
    sector = 2 * np.pi / 5
    folded = np.abs((angle + sector / 2) % sector - sector / 2)
    radius = np.hypot(x, y)
    fx, fy = radius * np.cos(folded), radius * np.sin(folded)
    # Line from the point (1, 0) to the notch at 36 degrees, radius 0.4.
    nx, ny = 0.4 * np.cos(sector / 2), 0.4 * np.sin(sector / 2)
    ex, ey = nx - 1.0, ny
    length = np.hypot(ex, ey)
    return -((fx - 1.0) * ey - fy * ex) / length * -1.0
