"""Vectors of sounds and of words: whole, independent of the batch, and refused where a trunk is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.imagebind.small_imagebind import imagebind_folder
from videollm.clips import Clip, Frames, Waveform
from videollm.errors import ModelNotFoundError
from videollm.models.checkup import check_folder
from videollm.models.families import look_up
from videollm.models.family_memory import plan_family
from videollm.moments.sound import SoundEncoder, load_sound_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imagebind_folder(tmp_path_factory.mktemp("imagebind"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SoundEncoder:
    return load_sound_encoder(folder, "cpu")


def heard(samples: np.ndarray, rate_hz: int = 16000, start_seconds: float = 0.0) -> Clip:
    wave = Waveform(samples[None].astype(np.float32), rate_hz, start_seconds)
    return Clip("a.wav", "audio", "hash", wave.duration_seconds, None, (wave,), ((0.0, wave.duration_seconds),))


def noise(seconds: float, seed: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).standard_normal(round(16000 * seconds))


SEEN = Clip("b.mp4", "video", "hash", 1.0, Frames(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1), 1.0))


def test_a_window_is_the_mean_of_its_segments(encoder: SoundEncoder) -> None:
    first, second = noise(0.5, 0), noise(0.5, 1)
    whole, one, other = encoder.clips([heard(np.concatenate([first, second])), heard(first), heard(second)])
    assert whole is not None and one is not None and other is not None
    mean = (one + other) / np.linalg.norm(one + other)
    np.testing.assert_allclose(whole, mean, atol=1e-5)
    assert whole.shape == (encoder.width,) and whole.dtype == np.float32
    assert np.linalg.norm(one - other) > 1e-3


def test_sounds_of_a_batch_are_independent_and_silence_has_no_vector(encoder: SoundEncoder) -> None:
    clips = [heard(noise(1.2, 2)), SEEN, heard(noise(0.3, 3)), heard(noise(2.0, 4), start_seconds=7.0)]
    together = encoder.clips(clips)
    assert together[1] is None and encoder.clips([SEEN]) == [None]
    for clip, vector in zip(clips, together, strict=True):
        (alone,) = encoder.clips([clip])
        if vector is not None:
            assert alone is not None
            np.testing.assert_allclose(alone, vector, atol=1e-5)


def test_pieces_that_start_late_are_heard(encoder: SoundEncoder) -> None:
    samples = noise(1.0, 5)
    early, late = encoder.clips([heard(samples), heard(samples, start_seconds=12.0)])
    assert early is not None and late is not None
    np.testing.assert_allclose(early, late, atol=1e-4)


def test_words(encoder: SoundEncoder) -> None:
    a_dog, a_hum = encoder.words("a dog barks"), encoder.words("a hum")
    assert a_dog.shape == (encoder.width,) and abs(np.linalg.norm(a_dog) - 1) < 1e-5
    assert np.linalg.norm(a_dog - a_hum) > 1e-3
    np.testing.assert_array_equal(encoder.words("“a dog barks”"), encoder.words('"a dog barks"'))
    assert np.isfinite(encoder.words("word " * 200)).all()


def test_the_name_tells_weights_apart(encoder: SoundEncoder, folder: Path, tmp_path: Path) -> None:
    assert load_sound_encoder(folder).name == encoder.name
    assert load_sound_encoder(imagebind_folder(tmp_path, seed=1)).name != encoder.name


def test_what_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="one is missing"):
        load_sound_encoder(imagebind_folder(tmp_path / "deaf", audio_config=None))
    with pytest.raises(ModelNotFoundError, match="no model of LaViLa, LF-VILA or ImageBind"):
        load_sound_encoder(tmp_path / "none")
    with pytest.raises(ModelNotFoundError, match="this needs ImageBindModel"):
        load_sound_encoder("tiny_dual_encoder")


def test_the_folder_is_looked_over_and_planned(folder: Path) -> None:
    found = check_folder(folder)
    assert found.problems == () and found.family is not None and found.family.what == "ImageBind"
    plan, half = plan_family(look_up(folder))
    assert plan.weights_bytes == 4 * found.parameters == 2 * half.weights_bytes
    assert plan.encoding_bytes > 0 and "segment of sound of 32x48" in plan.summary


def test_published_size_is_planned_on_the_meta_device(tmp_path: Path) -> None:
    """ImageBind-huge's ear and text trunk, without weights: 86 and 354 million parameters."""
    from videollm.models.imagebind import ImageBindConfig, ImageBindModel

    config = ImageBindConfig(audio_config={}, text_config={})
    config.architectures = ["ImageBindModel"]
    config.save_pretrained(tmp_path)
    plan, _ = plan_family(look_up(tmp_path))
    with torch.device("meta"):
        model = ImageBindModel(config)
    assert plan.weights_bytes == 4 * sum(value.numel() for value in model.parameters())
    assert 4 * 439e6 < plan.weights_bytes < 4 * 441e6
