"""The embedded LF-VILA before training: it is small, reads the world's words, and each of its losses falls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from videollm.data.stories import TEST_STORIES, StorySamples, draw_story
from videollm.training.tiny_lf_vila import EyeObjective, build_tiny_lf_vila, eye_batch, learn


@pytest.fixture(scope="module")
def built() -> Any:
    return build_tiny_lf_vila(0)


def test_it_is_small_and_reads_every_word_of_the_world(built: Any) -> None:
    model, processor = built
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 10e6  # bytes, at two each
    story = draw_story(TEST_STORIES, 8)
    encoded = processor.encode_sentences([list(story.sentences)])
    pieces = processor.tokenizer.convert_ids_to_tokens(encoded["input_ids"].flatten())
    assert "[UNK]" not in pieces and not any(piece.startswith("##") for piece in pieces)
    assert (encoded["input_ids"][encoded["attention_mask"] == 1] == processor.tokenizer.sep_token_id).sum() == 8
    assert "[UNK]" not in processor.tokenizer.tokenize("a zebra, 3 lamps")


def test_the_same_seed_gives_the_same_weights(built: Any) -> None:
    again, _ = build_tiny_lf_vila(0)
    assert all(one.equal(two) for one, two in zip(built[0].parameters(), again.parameters(), strict=True))


def test_the_eye_learns_single_scenes() -> None:
    model, processor = build_tiny_lf_vila(1)
    objective = EyeObjective(model).train()
    batch = eye_batch(processor, 0, 4, 2)
    assert batch["pixel_values"].shape == (4, 2, 3, 48, 48) and batch["labels"].shape == (4, 17)
    losses: list[float] = []

    def loss(step: int) -> torch.Tensor:
        found = objective(**batch)
        losses.append(found["loss"].item())
        return found["loss"]

    learn(objective.learned(), loss, 10, 2e-3)
    assert losses[-1] < 0.75 * losses[0]


def test_moments_are_learned_from_stories() -> None:
    model, processor = build_tiny_lf_vila(1)
    model.config.mtc_anchors = model.config.mtc_candidates = 4
    samples = StorySamples(processor, count=1, twins=1, kinds=("one",))
    items = [samples[position] for position in range(2)]
    pixels = torch.stack([item["pixel_values"] for item in items])
    words = processor.encode_sentences([item["sentences"] for item in items])
    moments: list[float] = []

    def loss(step: int) -> torch.Tensor:
        out = model(pixels, **words)
        moments.append(out.mtc_loss.item())
        return out.loss

    torch.manual_seed(0)
    learn(list(model.train().parameters()), loss, 10, 1e-3)
    assert moments[-1] < 0.75 * moments[0]
