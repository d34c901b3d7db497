"""The space-time encoder: who sees whom, other numbers of frames, how it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from tests.models.lavila.small import VISION, clips, shaken
from videollm.models.lavila import LavilaVisionConfig, LavilaVisionModel
from videollm.models.lavila.timesformer import SpaceTimeAttention, resize_time_embedding


def model(**options: object) -> LavilaVisionModel:
    return shaken(LavilaVisionModel, LavilaVisionConfig(**VISION | options))


@pytest.mark.parametrize("along", ["time", "space"])
def test_a_patch_sees_its_group_and_the_class_token(along: str) -> None:
    """What changes in one patch reaches its own group and the class token, and nothing else."""
    config = LavilaVisionConfig(**VISION)
    config._attn_implementation = "sdpa"
    attention = SpaceTimeAttention(config, along).eval()
    frames, places = 3, config.patches_per_frame
    states = torch.randn(1, 1 + frames * places, config.hidden_size, generator=torch.Generator().manual_seed(0))
    changed = states.clone()
    frame, place = 1, 2
    changed[0, 1 + frame * places + place] += 1.0
    with torch.no_grad():
        difference = (attention(changed, frames) - attention(states, frames)).abs().amax(dim=-1)[0] > 1e-7
    reached = difference[1:].view(frames, places)
    group = reached[:, place] if along == "time" else reached[frame]
    assert difference[0] and group.all() and reached.sum() == len(group)


def test_a_new_model_sees_frames_one_by_one() -> None:
    """Attention along time gives nothing at the beginning: shuffled frames give the same class token."""
    fresh = LavilaVisionModel(LavilaVisionConfig(**VISION)).eval()
    pixels = clips(2)
    with torch.no_grad():
        torch.testing.assert_close(fresh(pixels).pooler_output, fresh(pixels.flip(1)).pooler_output)
        block = fresh.blocks[0]
        hidden = torch.randn(1, 1 + 3 * 4, 32)
        assert not block.time_attention(block.norm_time(hidden), 3).any()


def test_batched_is_one_by_one() -> None:
    eye, pixels = model(), clips(3)
    with torch.no_grad():
        whole = eye(pixels).last_hidden_state
        single = torch.cat([eye(pixels[i : i + 1]).last_hidden_state for i in range(3)])
    torch.testing.assert_close(whole, single, atol=1e-5, rtol=1e-5)


def test_eager_is_sdpa() -> None:
    eye, pixels = model(), clips(2)
    with torch.no_grad():
        fast = eye(pixels).last_hidden_state
        eye.set_attn_implementation("eager")
        torch.testing.assert_close(eye(pixels).last_hidden_state, fast, atol=1e-5, rtol=1e-5)


def test_more_frames_and_fewer() -> None:
    eye = model()
    short = clips(2, frames=2)
    with torch.no_grad():
        before = eye(short).pooler_output
        with pytest.raises(ValueError, match="clips of 5 frames were given, this model takes 1 to 3"):
            eye(clips(1, frames=5))
        table = eye.time_embedding.clone()
        eye.resize_frames(5)
        assert eye.config.num_frames == 5 and eye(clips(1, frames=5)).pooler_output.shape == (1, 32)
        torch.testing.assert_close(eye.time_embedding, resize_time_embedding(table, 5))
        eye.resize_frames(2)
        assert torch.equal(eye.time_embedding, resize_time_embedding(table, 5)[:, :2])
    assert before.shape == (2, 32)
    with pytest.raises(ValueError, match="bilinear, nearest or zeros"):
        resize_time_embedding(table, 5, "cubic")


@pytest.mark.parametrize("shape", [(1, 3, 3, 16, 8), (1, 3, 1, 16, 16), (3, 3, 16, 16)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pixel_values must be \(clips, frames, 3, 16, 16\)"):
        model()(torch.zeros(shape))


def test_saved_and_loaded(tmp_path: Path) -> None:
    eye, pixels = model(gated_time_attention=True, patch_bias=True, pre_layernorm=False, hidden_act="gelu"), clips(1)
    eye.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, LavilaVisionModel) and isinstance(AutoConfig.from_pretrained(tmp_path), LavilaVisionConfig)
    with torch.no_grad():
        assert torch.equal(again(pixels).last_hidden_state, eye(pixels).last_hidden_state)


def test_branches_are_dropped_in_training_only() -> None:
    eye, pixels = model(drop_path_rate=0.5), clips(8)
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.equal(eye(pixels).pooler_output, eye(pixels).pooler_output)
        eye.train()
        assert not torch.equal(eye(pixels).pooler_output, eye(pixels).pooler_output)


def test_gradient_checkpointing() -> None:
    pixels = clips(1)
    grads = []
    for checkpointing in (False, True):
        eye = model().train()
        if checkpointing:
            eye.gradient_checkpointing_enable()
        eye(pixels).pooler_output.square().sum().backward()
        grads.append(eye.class_token.grad)
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("fields", [{"num_attention_heads": 5}, {"patch_size": 5}, {"num_frames": 0}])
def test_shapes_that_cannot_be(fields: dict[str, int]) -> None:
    with pytest.raises(Exception, match="must be a multiple of"):
        LavilaVisionConfig(**VISION | fields)
