"""The estimator against synthetic motion and sound of known truth: at least 95 of 100 right outside the margins."""

from __future__ import annotations

import numpy as np
import pytest

from videollm.data import attributes
from videollm.data.drawing import render
from videollm.data.sounds import synthesise
from videollm.data.world import draw_scene
from videollm.media.sampling import FrameSampling

RATE = 16_000


def texture(rng: np.random.Generator, size: int, finest: int) -> np.ndarray:
    """A random picture ``(size, size, 3)`` with detail from ``finest`` px up, 0-255."""
    picture = np.zeros((size, size, 3))
    grain = finest
    while grain < size // 2:
        cells = size // grain + 3
        coarse = rng.normal(size=(cells, cells, 3))
        place = np.arange(size) / grain
        low, part = place.astype(int), (place % 1.0)
        between = np.zeros((size, cells))  # bilinear, as a matrix: rows and columns alike
        between[np.arange(size), low], between[np.arange(size), low + 1] = 1 - part, part
        picture += np.moveaxis(between @ np.moveaxis(coarse, 2, 0) @ between.T, 0, 2) * grain**0.5
        grain *= 2
    picture -= picture.mean((0, 1))
    tint = rng.uniform(60, 190, 3)
    return np.clip(tint + picture / picture.std() * rng.uniform(18, 40), 0, 255)


def view(picture: np.ndarray, middle: tuple[float, float], scale: float, height: int, width: int) -> np.ndarray:
    """A window into the picture around ``middle`` (x, y); ``scale`` > 1 shows things larger."""
    y = (np.arange(height) - height / 2) / scale + middle[1]
    x = (np.arange(width) - width / 2) / scale + middle[0]
    y, x = np.clip(y, 0, picture.shape[0] - 1.001), np.clip(x, 0, picture.shape[1] - 1.001)
    top, left = y.astype(int), x.astype(int)
    part_y, part_x = (y - top)[:, None, None], (x - left)[None, :, None]
    rows = picture[top] * (1 - part_y) + picture[top + 1] * part_y
    return rows[:, left] * (1 - part_x) + rows[:, left + 1] * part_x


def shot(
    rng: np.random.Generator, motion: str, count: int, height: int, width: int, speed: float, things: int = 0
) -> np.ndarray:
    """``count`` frames 0.25 s apart of a texture moving at ``speed`` longer sides a second, with movers on top."""
    side = max(height, width)
    picture = texture(rng, side * 4, int(rng.integers(max(2, side // 24), max(3, side // 6))))
    middle = np.array([side * 2.0, side * 2.0])
    step = speed * side * 0.25
    direction = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}.get(motion, (0, 0))
    zoom = {"in": 1, "out": -1}.get(motion, 0) * 2 * speed * 0.25
    movers = [(rng.uniform(0.2, 0.8, 2), rng.uniform(-0.4, 0.4, 2), rng.uniform(0, 255, 3)) for _ in range(things)]
    frames = []
    for index in range(count):
        place = middle + (index - count / 2) * step * np.array(direction)
        frame = view(picture, (place[0], place[1]), float(np.exp(zoom * (index - count / 2))), height, width)
        for start, velocity, colour in movers:
            at = (start + velocity * index * 0.25) % 1.0
            radius = 0.11 * side
            far = np.hypot(np.arange(height)[:, None] - at[1] * height, np.arange(width)[None, :] - at[0] * width)
            frame = np.where((far < radius)[..., None], colour, frame)
        frames.append(frame + rng.normal(scale=rng.uniform(0, 3), size=frame.shape))
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def times(count: int) -> np.ndarray:
    return np.arange(count) * 0.25


def test_plain_colours_have_their_names() -> None:
    examples = {
        "black": [(0, 0, 0), (25, 25, 30)],
        "gray": [(128, 128, 128), (90, 92, 95), (180, 178, 180)],
        "white": [(255, 255, 255), (235, 232, 228)],
        "red": [(230, 30, 30), (140, 10, 10)],
        "orange": [(255, 150, 0), (240, 120, 20)],
        "yellow": [(250, 220, 30), (255, 255, 90)],
        "green": [(30, 170, 60), (10, 80, 20), (120, 220, 110)],
        "blue": [(40, 80, 220), (10, 10, 90), (130, 190, 240)],
        "purple": [(130, 40, 190), (90, 20, 140)],
        "pink": [(255, 110, 180), (250, 170, 175)],
        "brown": [(120, 70, 30), (139, 69, 19), (90, 60, 40)],
    }
    for name, colours in examples.items():
        for colour in colours:
            pixels = np.full((1, 8, 8, 3), colour, dtype=np.uint8)
            assert attributes.main_colour(pixels) == (name, 1.0), colour


def test_shares_of_colours_are_shares_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    right = total = 0
    for _ in range(60):
        pixels = np.full((4, 64, 96, 3), (40, 80, 220), dtype=np.uint8)
        width = int(rng.integers(5, 92))
        pixels[:, :, :width] = (230, 30, 30)
        shares = attributes.colour_shares(pixels)
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares["red"] == pytest.approx(width / 96)
        name, margin = attributes.main_colour(pixels)
        assert margin == pytest.approx(abs(2 * width - 96) / 96)
        if margin > 0.02:
            total += 1
            right += name == ("red" if width > 48 else "blue")
    assert total > 40 and right == total


@pytest.mark.parametrize(
    ("level", "name"), [(0, "dark"), (70, "dark"), (100, "medium"), (140, "medium"), (200, "bright")]
)
def test_brightness_of_a_level(level: int, name: str) -> None:
    got, margin = attributes.brightness(np.full((3, 40, 50, 3), level, dtype=np.uint8))
    assert got == name
    assert margin == pytest.approx(min(abs(level - 80), abs(level - 150)), abs=0.01)


SIZES = [(64, 64), (36, 64), (64, 36), (90, 160)]


def test_camera_motion_is_named() -> None:
    rng = np.random.default_rng(1)
    right = clear = total = 0
    wrong = []
    for index in range(140):
        motion = ("still", "left", "right", "up", "down", "in", "out")[index % 7]
        height, width = SIZES[index % 4]
        fast = 0.25 if motion in ("in", "out") else 0.8
        speed = float(np.exp(rng.uniform(np.log(0.06), np.log(fast))))
        pixels = shot(
            rng, motion, 8, height, width, 0.0 if motion == "still" else speed, things=int(rng.integers(0, 3))
        )
        name, margin = attributes.camera(pixels, times(8))
        total += 1
        if margin > 0.15:
            clear += 1
            right += name == motion
            if name != motion:
                wrong.append((motion, name, round(speed, 3), (height, width)))
    assert clear >= 0.85 * total, (clear, total)
    assert right >= 0.95 * clear, wrong


def test_a_shift_of_a_quarter_of_the_picture_a_frame_is_followed() -> None:
    rng = np.random.default_rng(2)
    for motion in ("left", "right", "up", "down"):
        pixels = shot(rng, motion, 6, 64, 64, 0.98)
        assert attributes.camera(pixels, times(6))[0] == motion
        assert attributes.cuts(pixels, times(6)) == []


def test_camera_says_unclear_where_nothing_is_common() -> None:
    rng = np.random.default_rng(3)
    flicker = rng.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    assert attributes.camera(flicker, times(8)) == ("unclear", 0.0)
    halves = np.concatenate([shot(rng, "left", 8, 64, 32, 0.5), shot(rng, "right", 8, 64, 32, 0.5)], axis=2)
    assert attributes.camera(halves, times(8))[0] == "unclear"
    there_and_back = shot(rng, "left", 8, 64, 64, 0.4)
    pixels = np.concatenate([there_and_back, there_and_back[::-1]])
    assert attributes.camera(pixels, times(16))[0] == "unclear"


def test_a_flat_picture_with_a_mover_says_nothing_of_the_camera() -> None:
    pixels = np.full((8, 64, 64, 3), 200, dtype=np.uint8)
    for index in range(8):
        pixels[index, 20:36, 4 + index * 5 : 20 + index * 5] = (200, 30, 30)
    assert attributes.camera(pixels, times(8))[0] in ("unclear", "still")
    assert attributes.camera(np.full((8, 64, 64, 3), 90, dtype=np.uint8), times(8))[0] == "still"


def test_cuts_are_found_and_motion_is_not_a_cut() -> None:
    rng = np.random.default_rng(4)
    exact = 0
    wrong = []
    for index in range(120):
        motions = rng.choice(["still", "left", "right", "up", "down", "in", "out"], size=3)
        height, width = SIZES[index % 4]
        lengths = rng.integers(3, 8, size=1 + index % 3)
        parts = [
            shot(rng, str(motion), int(length), height, width, float(rng.uniform(0.05, 0.3)), int(rng.integers(0, 3)))
            for motion, length in zip(motions, lengths, strict=False)
        ]
        pixels = np.concatenate(parts)
        truth = [float(second) for second in np.cumsum(lengths)[:-1] * 0.25]
        found = attributes.cuts(pixels, times(len(pixels)))
        exact += found == truth
        if found != truth:
            wrong.append((truth, found, list(motions)))
    assert exact >= 0.95 * 120, wrong


def test_an_appearing_thing_and_a_fade_are_not_cuts() -> None:
    rng = np.random.default_rng(5)
    pixels = shot(rng, "still", 10, 64, 64, 0.0)
    pixels[5:, 20:44, 20:44] = (250, 40, 40)
    assert attributes.cuts(pixels, times(10)) == []
    one = shot(rng, "still", 1, 64, 64, 0.0)[0].astype(float)
    other = shot(rng, "still", 1, 64, 64, 0.0)[0].astype(float)
    fade = np.stack([one + (other - one) * part for part in np.linspace(0, 1, 12)]).astype(np.uint8)
    assert attributes.cuts(fade, times(12)) == []
    flicker = rng.integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)
    assert attributes.cuts(flicker, times(10)) == []


def test_moving_and_still() -> None:
    rng = np.random.default_rng(6)
    right = clear = total = 0
    for index in range(80):
        moving = bool(index % 2)
        things = int(rng.integers(1, 3)) if moving and rng.random() < 0.5 else 0
        motion = "left" if moving and not things else "still"
        pixels = shot(rng, motion, 9, *SIZES[index % 4], float(rng.uniform(0.1, 0.5)), things=things)
        name, margin = attributes.moves(pixels, times(9))
        total += 1
        if margin > 0.25:
            clear += 1
            right += name == moving
    assert clear >= 0.9 * total and right >= 0.95 * clear, (right, clear, total)
    assert attributes.moves(pixels[:1], times(1)) == (False, 1.0)


def tone(rng: np.random.Generator, seconds: float) -> np.ndarray:
    at = np.arange(int(seconds * RATE)) / RATE
    base = rng.uniform(90, 1500)
    kind = rng.integers(0, 3)
    if kind == 0:
        wave = np.sin(2 * np.pi * base * at)
    elif kind == 1:
        wave = sum(np.sin(2 * np.pi * base * k * at + rng.uniform(0, 6)) / k for k in range(1, 5))
    else:
        wave = np.sin(2 * np.pi * (base * at + rng.uniform(100, 500) * at**2))
    return wave / np.sqrt(np.mean(wave**2))


def noise(rng: np.random.Generator, seconds: float) -> np.ndarray:
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.normal(size=count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum *= (np.maximum(hertz, 40) / 1000) ** -rng.uniform(0, 1)
    wave = np.fft.irfft(spectrum, count)
    return wave / np.sqrt(np.mean(wave**2))


def test_loudness_of_a_level() -> None:
    rng = np.random.default_rng(7)
    for index in range(60):
        level = float(rng.uniform(-80, -6))
        sound = np.zeros(3 * RATE)
        sound[RATE : 2 * RATE] = (tone if index % 2 else noise)(rng, 1.0) * 10 ** (level / 20)
        name, margin = attributes.loudness(sound.astype(np.float32), RATE)
        if margin > 1.0:
            assert name == ("silent" if level < -60 else "quiet" if level < -26 else "loud"), level
    assert attributes.loudness(np.zeros(RATE, dtype=np.float32), RATE)[0] == "silent"
    assert attributes.loudness(np.zeros(0, dtype=np.float32), RATE)[0] == "silent"


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_tones_and_noises_are_told_apart(rate: int) -> None:
    rng = np.random.default_rng(8)
    right = clear = 0
    for index in range(80):
        wave = (tone if index % 2 else noise)(rng, 1.5) * 0.1
        place = np.arange(int(1.5 * rate)) * RATE / rate
        wave = np.interp(place, np.arange(len(wave)), wave) if rate < RATE else wave
        sound = np.zeros(len(wave) * 2, dtype=np.float32)
        sound[len(wave) // 2 : len(wave) // 2 + len(wave)] = wave
        name, margin = attributes.tonal(sound, rate)
        if margin > 0.04:
            clear += 1
            right += name == ("tonal" if index % 2 else "noisy")
    assert clear >= 0.9 * 80 and right >= 0.95 * clear, (right, clear)
    assert attributes.tonal(np.zeros(RATE, dtype=np.float32), RATE) == ("noisy", 0.0)


def test_onsets_are_counted_and_timed() -> None:
    rng = np.random.default_rng(9)
    exact = 0
    wrong = []
    for _ in range(120):
        sound = rng.normal(size=5 * RATE) * 10 ** (rng.uniform(-75, -55) / 20)
        truth = []
        at = float(rng.choice([0.0, rng.uniform(0.2, 1.0)]))
        loud = rng.uniform(-30, -8)
        while at < 4.4 and len(truth) < 5:
            length = float(rng.uniform(0.08, 0.9))
            wave = (tone if rng.random() < 0.5 else noise)(rng, length) * 10 ** ((loud + rng.uniform(-6, 0)) / 20)
            ramp = np.minimum(1, np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / (0.01 * RATE))
            start = int(at * RATE)
            sound[start : start + len(wave)] += (wave * ramp)[: len(sound) - start]
            truth.append(at)
            at += length + float(rng.uniform(0.2, 1.2))
        found = attributes.onsets(sound.astype(np.float32), RATE)
        good = len(found) == len(truth) and all(abs(a - b) < 0.05 for a, b in zip(found, truth, strict=True))
        exact += good
        if not good:
            wrong.append(([round(t, 2) for t in truth], [round(t, 2) for t in found]))
    assert exact >= 0.95 * 120, wrong
    assert attributes.onsets(np.zeros(RATE, dtype=np.float32), RATE) == []
    assert attributes.onsets((rng.normal(size=RATE) * 0.1).astype(np.float32), RATE) == [0.0]


def test_the_estimator_agrees_with_the_world() -> None:
    """Clips of the world without drawn things, or seen by a moving camera: their truth was decided, not computed."""
    counts = {"cuts": [0, 0], "camera": [0, 0], "onsets": [0, 0], "loudness": [0, 0]}
    for index in range(60):
        scene = draw_scene(3_500_000_000 + index, "plain" if index % 2 else "camera")
        shown = np.arange(max(1, round(scene.duration_seconds * scene.frame_rate))) / scene.frame_rate
        seconds = shown[FrameSampling("rate").indices(shown, scene.duration_seconds)]
        pixels = render(scene, seconds, 96)
        found = attributes.cuts(pixels, seconds)
        first_after = [float(seconds[np.searchsorted(seconds, cut - 1e-9)]) for cut in scene.cut_seconds]
        counts["cuts"][found == first_after] += 1
        name, margin = attributes.camera(pixels, seconds, found)
        if margin > 0.3:
            counts["camera"][name == scene.shots[0].camera] += 1
        samples = synthesise(scene, RATE, 1)
        if samples is None:
            continue
        level, distance = attributes.loudness(samples[0], RATE)
        if distance > 3:
            counts["loudness"][level == scene.loudness] += 1
        if not {event.kind for event in scene.sounds} & {"music", "speech"}:  # they have pauses of their own
            count = sum(event.count for event in scene.sounds)
            counts["onsets"][len(attributes.onsets(samples[0], RATE)) == count] += 1
    assert min(sum(pair) for pair in counts.values()) >= 20, counts
    assert all(right >= 0.95 * (wrong + right) for wrong, right in counts.values()), counts
