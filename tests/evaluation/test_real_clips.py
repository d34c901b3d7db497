"""Questions about anybody's clips: truths are those of how the clip was made, and only what is clear is asked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.small_model import small_model
from videollm.clips import Clip, Waveform
from videollm.evaluation.benchmark import WorldBenchmark
from videollm.evaluation.real_clips import evaluate_media, questions, truths
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.write import write_video

RATE = 16_000
FRAMES, SOUND = FrameSampling("rate"), SoundSampling("contiguous", 32, 0.5)


def panorama(rng: np.random.Generator, tint: tuple[int, int, int]) -> np.ndarray:
    """A wide smooth picture ``(96, 640, 3)`` around one colour."""
    coarse = rng.normal(0, 26, (12, 80, 1))
    picture = np.kron(coarse, np.ones((8, 8, 1)))
    for axis in (0, 1):
        picture = sum(np.roll(picture, shift, axis) for shift in range(-4, 5)) / 9 * 1.4
    return np.clip(np.array(tint) + picture, 0, 255)


def film(path: Path, *, tints: list[tuple[int, int, int]], speed: float, sound: np.ndarray | None) -> Clip:
    """A pan over a picture of each tint, 2 s each, content moving left at ``speed`` px a frame, 20 frames a second."""
    rng = np.random.default_rng(5)
    frames = []
    for tint in tints:
        wide = panorama(rng, tint)
        frames += [wide[:, int(index * speed) : int(index * speed) + 128] for index in range(40)]
    wave = None if sound is None else Waveform(sound[None].astype(np.float32), RATE)
    write_video(path, np.stack(frames).astype(np.uint8), fps=20, waveform=wave)
    return read_clip(path, frames=FRAMES, sound=SOUND)


def test_a_pan_with_beeps(tmp_path: Path) -> None:
    at = np.arange(int(2 * RATE)) / RATE
    beeps = 0.3 * np.sin(2 * np.pi * 600 * at) * (((at > 0.4) & (at < 0.6)) | ((at > 1.2) & (at < 1.4)))
    clip = film(tmp_path / "a.mp4", tints=[(40, 70, 200)], speed=2.0, sound=beeps)
    known = dict(truths(clip).clear)
    assert known["main_colour"] == "Blue."
    assert known["camera"] == "The picture moves left."
    assert known["moves"] == "It moves."
    assert known["cut"] == "No cut." and known["cut_when"] == "There is no cut."
    assert known["sound_loud"] == "Loud." and known["tonal"] == "Tonal." and known["onsets"] == "Two."
    assert known["silence"] == "Yes, there is sound."


def test_a_still_film_with_a_cut_and_no_sound(tmp_path: Path) -> None:
    clip = film(tmp_path / "b.mp4", tints=[(60, 160, 60), (40, 110, 40)], speed=0.0, sound=None)
    known = dict(truths(clip).clear)
    assert known["main_colour"] == "Green." and known["camera"] == "The picture stays still."
    assert known["cut"] == "One cut." and known["cut_when"] == "At 2.0 s."
    assert known["silence"] == "No, there is no sound." and known["onsets"] == "None."
    assert "tonal" not in known and "moves" not in known


def test_what_is_not_clear_is_not_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (40, 96, 128, 3), dtype=np.uint8)
    write_video(tmp_path / "c.mp4", frames, fps=20)
    clip = read_clip(tmp_path / "c.mp4", frames=FRAMES, sound=SOUND)
    found = truths(clip)
    assert {"camera", "main_colour"} <= set(found.unclear)
    assert not set(found.unclear) & {kind for kind, _ in found.clear}


def test_at_least_twenty_questions_a_clip_in_old_and_new_words(tmp_path: Path) -> None:
    clip = film(tmp_path / "d.mp4", tints=[(40, 70, 200)], speed=2.0, sound=None)
    items, known = questions(clip, "d.mp4", 0)
    computed = [item for item in items if item.condition == "computed"]
    assert len(computed) >= 20
    assert {item.type for item in computed} == {kind for kind, _ in known.clear}
    rows = Counter(item.row for item in computed)
    assert rows["trained wordings"] >= 8 and rows["new wordings"] >= 8
    assert len({(item.type, item.question) for item in computed}) == len(computed)
    assert Counter(item.condition for item in items) >= Counter({"described": 4, "drawn things": 4, "outside": 4})


def test_a_folder_of_clips_is_reported(tmp_path: Path) -> None:
    model, processor = small_model()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    media = tmp_path / "media"
    media.mkdir()
    film(media / "a.mp4", tints=[(40, 70, 200)], speed=2.0, sound=None)
    film(media / "b.mp4", tints=[(60, 160, 60), (200, 60, 60)], speed=0.0, sound=None)
    (media / "broken.mp4").write_bytes(b"no film at all")
    (media / "words.txt").write_text("not asked about")
    lines: list[str] = []
    benchmark = WorldBenchmark("m", str(tmp_path / "model"), max_new_tokens=4)
    items = evaluate_media(benchmark, media, tmp_path / "out", lines.append)
    text = "\n".join(lines)
    assert {item.film for item in items} == {"a.mp4", "b.mp4"}
    assert "broken.mp4: passed over" in text and "words.txt" not in text
    assert "computed attributes" in text and "descriptions that invent" in text
    assert re.search(r"at least [2-9]\d a clip", text)
    assert len((tmp_path / "out" / "media_predictions.jsonl").read_text().splitlines()) == len(items)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_questions_each_time(tmp_path: Path, seed: int) -> None:
    clip = film(tmp_path / "e.mp4", tints=[(40, 70, 200)], speed=0.0, sound=None)
    assert questions(clip, "e", seed) == questions(clip, "e", seed)
