"""Windows seen within the stretch around them, and sentences about them, as vectors of one space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models.lf_vila.small_lf_vila import small_model, small_processor
from videollm.clips import Clip, Frames, Waveform
from videollm.errors import DataError, ModelNotFoundError
from videollm.models.lf_vila import LfVilaForPreTraining, LfVilaForRetrieval, embed_paragraph, embed_video
from videollm.moments.long_form import LongFormEncoder, load_long_form_encoder


def window(start: int, end: int, height: int = 24, width: int = 40) -> Clip:
    pixels = np.random.default_rng(0).integers(0, 256, (20, height, width, 3), dtype=np.uint8)[start:end]
    return Clip("a.mp4", "video", f"{start}", 10.0, Frames(pixels, np.arange(start, end) / 2, 10.0))


def sound() -> Clip:
    wave = Waveform(np.zeros((1, 800), np.float32), 8000)
    return Clip("a.mp4", "audio", "sound", 0.1, None, (wave,), ((0.0, 0.1),))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> LongFormEncoder:
    processor = small_processor(tmp_path_factory.mktemp("words"))
    return LongFormEncoder(small_model(LfVilaForPreTraining), processor, "small")


def test_windows_are_seen_as_one_video(encoder: LongFormEncoder) -> None:
    windows = [window(0, 8), window(4, 12), sound(), window(8, 16)]
    found = encoder.windows(windows)
    whole = window(0, 16).frames
    assert whole is not None
    rows = embed_video(encoder.model, encoder.processor, whole, frames_per_clip=1).clip_vectors.numpy()
    for vector, (start, end) in zip((found[0], found[1], found[3]), ((0, 8), (4, 12), (8, 16)), strict=True):
        mean = rows[start:end].mean(axis=0)
        assert vector is not None
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert found[2] is None and encoder.windows([sound()]) == [None]


def test_a_video_may_change_its_size(encoder: LongFormEncoder) -> None:
    found = encoder.windows([window(0, 4), window(4, 8, 40, 24), window(8, 12)])
    assert all(vector is not None and vector.shape == (encoder.width,) for vector in found)


def test_of_words_none_is_cut_off(encoder: LongFormEncoder) -> None:
    said = embed_paragraph(encoder.model, encoder.processor, "A man runs. The door opens.")
    mean = said.sentence_vectors.mean(dim=0).numpy()
    np.testing.assert_allclose(encoder.words("A man runs. The door opens."), mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(DataError, match="no words"):
        encoder.words(" ")


@pytest.mark.parametrize("kind", [LfVilaForPreTraining, LfVilaForRetrieval])
def test_from_a_folder(kind: type, tmp_path: Path) -> None:
    small_model(kind).save_pretrained(tmp_path)
    small_processor(tmp_path).save_pretrained(tmp_path)
    loaded = load_long_form_encoder(tmp_path, "cpu")
    assert loaded.name.startswith("lf-vila-") and loaded.words("a red circle").shape == (loaded.width,)


def test_what_cannot_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no model of LaViLa, LF-VILA or ImageBind in"):
        load_long_form_encoder(tmp_path)
