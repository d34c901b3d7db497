"""What the small LaViLa models begin with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from videollm.data.world_narrations import texts_of_the_world
from videollm.models import hub
from videollm.models.lavila import LavilaVisionModel
from videollm.training import tiny_lavila
from videollm.training.pieces import Pieces
from videollm.training.recipe import LavilaRecipe
from videollm.training.tiny_lavila import (
    MotionObjective,
    build_dual_encoder,
    build_eye,
    build_narrator,
    build_rephraser,
    clip_tokenizer,
    eye_pieces,
    gpt2_tokenizer,
    save_narrator_start,
    see_as_tiny,
    t5_tokenizer,
    vision_config,
    words_pieces,
)

TEXTS = texts_of_the_world(400)


def test_tokenizers_keep_every_word() -> None:
    said = "An orange cross, isn't it? moves ZÜRICH 42"
    for build in (clip_tokenizer, gpt2_tokenizer, t5_tokenizer):
        tokenizer = build(TEXTS)
        for text in (*TEXTS[:20], said):
            ids = tokenizer(text)["input_ids"]
            told = tokenizer.decode(ids, skip_special_tokens=True).strip()
            # CLIP's has no capitals, and puts a blank behind every word.
            assert told.replace(" ", "").lower() == text.replace(" ", "").lower()
        assert len(tokenizer(TEXTS[0])["input_ids"]) < 26
    tokenizer = clip_tokenizer(TEXTS)
    assert tokenizer.eos_token_id == len(tokenizer) - 1  # what CLIP's text transformer is read at


def test_it_sees_single_frames_as_tiny_does() -> None:
    """With nothing of other times, every patch is what `tiny`'s eye makes of its frame."""
    vision = LavilaVisionModel(vision_config()).eval()
    see_as_tiny(vision)
    with torch.no_grad():
        vision.time_embedding.zero_()
        for block in vision.blocks:
            block.time_attention.proj.weight.zero_()
        frames = torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        eye = hub.load("tiny", device="cpu")[0].vision_model
        wanted = eye(frames.flatten(0, 1)).last_hidden_state
        found = vision(frames).last_hidden_state
    assert torch.allclose(found, wanted, atol=1e-4)


def test_heads_begin_by_looking_ahead_and_back() -> None:
    vision = LavilaVisionModel(vision_config()).eval()
    see_as_tiny(vision)
    over_time = vision.blocks[0].time_attention
    query, key, value = over_time.qkv.weight.view(3, over_time.num_heads, -1, 128)
    times = vision.time_embedding[0]
    for head, step in enumerate((1, -1, 2, -2)):
        seen = (times @ query[head].T @ key[head] @ times.T).argmax(dim=1)
        assert seen.tolist() == [min(max(time + step, 0), 3) for time in range(4)]
    assert torch.equal(value[0], value[1]) and torch.equal(value[2], value[3])


def test_models_are_small_and_of_the_published_classes() -> None:
    dual, processor = build_dual_encoder(0, TEXTS)
    narrator, narrator_processor = build_narrator(0, TEXTS)
    rephraser = build_rephraser(0, TEXTS)
    for model in (dual, narrator, rephraser.model):
        assert sum(parameter.numel() for parameter in model.parameters()) < 3e6
    clips = torch.zeros(2, 4, 3, 64, 64)
    assert dual(pixel_values=clips, **processor.texts(TEXTS[:2]), return_loss=True).loss.isfinite()
    assert narrator(pixel_values=clips, **narrator_processor.texts(TEXTS[:2])).loss.isfinite()
    # The two see alike: a narrator may start from a dual encoder's eye.
    assert all(
        torch.equal(a, b)
        for a, b in zip(dual.vision_model.parameters(), narrator.vision_model.parameters(), strict=True)
    )


def learns_in_three_steps(pieces: Pieces, batch: dict[str, Any]) -> bool:
    """Whether the loss of a batch falls by a tenth."""
    optimizer = torch.optim.Adam([one for one in pieces.objective.parameters() if one.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        loss = pieces.objective(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] < 0.9 * losses[0]


def test_the_eye_learns_what_it_is_shown(tmp_path: Path) -> None:
    for part in build_eye(0):
        part.save_pretrained(tmp_path / "eye")
    recipe = LavilaRecipe(
        stage="classifier", model=str(tmp_path / "eye"), output=str(tmp_path / "run"), steps=3, batch_size=2,
        learning_rate=1e-3,
    )  # fmt: skip
    pieces = eye_pieces(recipe, 2)
    batch = pieces.collate([pieces.data[position] for position in range(2)])
    assert isinstance(pieces.objective, MotionObjective)
    assert learns_in_three_steps(pieces, batch)
    assert {"patch_motion_right", "motion_right", "shape_right"} <= set(pieces.objective.metrics)
    assert pieces.model.config.vision_config.num_frames == tiny_lavila.FRAMES


def test_the_narrator_reads_before_it_looks(tmp_path: Path) -> None:
    """Its decoder learns from sentences alone; what will look at clips stays as it was."""
    dual, _ = build_dual_encoder(0, TEXTS)
    dual.save_pretrained(tmp_path / "baseline")
    clip = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    save_narrator_start(tmp_path / "narrator", TEXTS, tmp_path / "baseline", [clip])
    recipe = LavilaRecipe(
        stage="narrator", model=str(tmp_path / "narrator"), output=str(tmp_path / "run"), steps=3, batch_size=8,
        learning_rate=1e-3,
    )  # fmt: skip
    pieces = words_pieces(recipe, TEXTS[:8])
    learns = {name for name, parameter in pieces.model.named_parameters() if parameter.requires_grad}
    assert "language_model.transformer.h.0.attn.c_attn.weight" in learns
    assert not any(name.startswith(("vision_model", "visual_pool")) or "cross" in name for name in learns)
    batch = pieces.collate([pieces.data[position] for position in range(8)])
    assert set(batch) == {"input_ids", "labels"}
    assert learns_in_three_steps(pieces, batch)
    # Attention as plain products: quicker than the fused kind for groups this small.
    assert pieces.model.config._attn_implementation == "eager"
