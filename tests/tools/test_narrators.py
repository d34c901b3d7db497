"""Narrators and the scorer say of many windows what they say of one, and of folders what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_model import drawn_clip, small_model
from tests.tools import small_lavila
from videollm.chat.session import ChatSession
from videollm.clips import Clip
from videollm.errors import ConfigError, ModelNotFoundError
from videollm.media.sampling import FrameSampling
from videollm.models.lavila import EntropyMeter
from videollm.tools.narrators import (
    ChatNarrator,
    DualEncoderScorer,
    LavilaNarrations,
    load_narrator,
    load_rephraser,
    load_scorer,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lavila")


@pytest.fixture(scope="module")
def lavila(folders: Path) -> LavilaNarrations:
    found = load_narrator(small_lavila.narrator_folder(folders / "narrator"), device="cpu")
    assert isinstance(found, LavilaNarrations)
    return found


@pytest.fixture(scope="module")
def scorer(folders: Path) -> DualEncoderScorer:
    return load_scorer(small_lavila.dual_encoder_folder(folders / "dual_encoder"), device="cpu")


def blocks(seed: int, frames: int = 8, sound_seconds: float = 1.0) -> Clip:
    """A clip of large coloured squares, which no resizing makes all grey."""
    clip = drawn_clip(seed, frames=frames, sound_seconds=sound_seconds)
    assert clip.frames is not None
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, 2, 2, 3), dtype=np.uint8)
    pixels = coarse.repeat(20, axis=1).repeat(24, axis=2)
    return replace(clip, frames=replace(clip.frames, pixels=pixels))


def windows() -> list[Clip]:
    return [blocks(0), blocks(1, frames=2), blocks(2, sound_seconds=0), drawn_clip(3, frames=0), blocks(4)]


def test_a_chat_model_says_of_windows_what_a_chat_about_each_says() -> None:
    model, processor = small_model()
    narrator = ChatNarrator(model, processor, question="what is in the video?", max_new_tokens=12)
    for clip, (said,) in zip(windows(), narrator.describe(windows(), 1, 0), strict=True):
        session = ChatSession(model, processor, max_new_tokens=12)
        session.add(clip)
        assert said.text == session.ask("what is in the video?").text and said.perplexity is None


def test_a_chat_model_draws_the_same_with_the_same_seed() -> None:
    narrator = ChatNarrator(*small_model(), question="what is in the video?", max_new_tokens=12)
    first = narrator.describe(windows(), 4, 7)
    assert [len(some) for some in first] == [4] * 5
    assert first == narrator.describe(windows(), 4, 7) != narrator.describe(windows(), 4, 8)
    assert all(len({one.text for one in some}) > 1 for some in first)


def test_a_chat_model_without_an_ear_says_nothing_of_sound() -> None:
    narrator = ChatNarrator(*small_model(ears=False), question="what is in the video?", max_new_tokens=12)
    assert narrator.sound is None
    assert [len(some) for some in narrator.describe(windows(), 1, 0)] == [1, 1, 1, 0, 1]
    assert narrator.describe([windows()[3]], 1, 0) == [[]]


def test_lavila_says_of_windows_what_it_says_of_each(lavila: LavilaNarrations) -> None:
    assert lavila.frames == FrameSampling("centre", frames=3) and lavila.sound is None
    together = lavila.describe(windows(), 1, 0)
    assert [len(some) for some in together] == [1, 1, 1, 0, 1]
    for clip, said in zip(windows(), together, strict=True):
        (alone,) = lavila.describe([clip], 1, 0)
        assert [one.text for one in alone] == [one.text for one in said]
        for a, b in zip(alone, said, strict=True):
            assert a.perplexity == pytest.approx(b.perplexity, abs=1e-3) and a.perplexity >= 1
    assert len({some[0].perplexity for some in together if some}) == 4, "the frames do not matter"
    meter = EntropyMeter(lavila.processor.tokenizer.eos_token_id)
    pixels = lavila.processor.clips([_middles(windows()[0])])
    ids = lavila.model.generate(**pixels, do_sample=False, logits_processor=[meter])
    assert lavila.processor.sentences(ids) == [together[0][0].text]
    assert meter.scores.tolist() == [pytest.approx(together[0][0].perplexity, abs=1e-4)]


def _middles(clip: Clip) -> np.ndarray:
    """Three frames of eight, by hand: segments of 7/3 frames."""
    assert clip.frames is not None and len(clip.frames) == 8
    return clip.frames.pixels[[1, 3, 6]]


def test_lavila_draws_the_same_with_the_same_seed_and_leaves_the_generator_alone(lavila: LavilaNarrations) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = lavila.describe(windows(), 4, 7)
    torch.testing.assert_close(torch.rand(2), expected)
    assert [len(some) for some in first] == [4, 4, 4, 0, 4]
    assert first == lavila.describe(windows(), 4, 7) != lavila.describe(windows(), 4, 8)


def test_similarities_are_the_cosines_of_the_dual_encoder(scorer: DualEncoderScorer) -> None:
    texts = [["knife opens", "a door"], [], ["cup left"], ["the box"], ["lifts the lid up"]]
    found = scorer.similarities(windows(), texts)
    assert [len(row) for row in found] == [2, 0, 1, 1, 1] and found[3] == [None]
    pixels = scorer.processor.clips([_middles(windows()[0])])["pixel_values"]
    with torch.no_grad():
        video = scorer.model.get_video_features(pixels)
        words = scorer.model.get_text_features(**scorer.processor.texts(texts[0]))
    cosines = torch.nn.functional.cosine_similarity(video, words)
    assert found[0] == pytest.approx(cosines.tolist(), abs=2e-4)
    assert scorer.similarities([windows()[3]], [["a"]]) == [[None]]


def test_what_is_wrong_with_a_folder_is_said(
    folders: Path, lavila: LavilaNarrations, scorer: DualEncoderScorer, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'nobody'"):
        load_narrator("nobody")
    with pytest.raises(ModelNotFoundError, match=r"config\.json is of a 'lavila_dual_encoder' model"):
        load_narrator(folders / "dual_encoder")
    with pytest.raises(ModelNotFoundError, match="it is of a 'lavila_narrator' model; give the folder of a LaViLa"):
        load_scorer(folders / "narrator")
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json"):
        load_scorer(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no rephraser in"):
        load_rephraser(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no rephraser in"):
        load_rephraser(folders / "narrator")
    with pytest.raises(ConfigError, match="not quantised; leave --bits out"):
        load_narrator(folders / "narrator", bits=4)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((folders / "narrator" / "config.json").read_bytes())
    with pytest.raises(ModelNotFoundError, match="cannot be used"):
        load_narrator(broken)
