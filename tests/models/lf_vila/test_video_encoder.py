"""The windowed encoder: reach in time, any number and size of frames, the same in parts as whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.models.lf_vila.small_lf_vila import VIDEO, video
from videollm.models.lf_vila import LfVilaVideoConfig, LfVilaVideoEncoder
from videollm.models.lf_vila.video_encoder import relative_positions, window_mask


def encoder(**changed: object) -> LfVilaVideoEncoder:
    torch.manual_seed(0)
    return LfVilaVideoEncoder(LfVilaVideoConfig(**(VIDEO | changed))).eval()


@pytest.fixture(scope="module")
def ours() -> LfVilaVideoEncoder:
    return encoder()


def reach(model: LfVilaVideoEncoder, frames: int) -> list[torch.Tensor]:
    """Of each group: bool ``(T, T)``, whether a frame (row) depends on a frame (column)."""
    seen: list[torch.Tensor] = []
    handles = [group.register_forward_hook(lambda *given: seen.append(given[2])) for group in model.groups]
    columns: list[list[torch.Tensor]] = []
    for frame in range(frames):
        seen.clear()
        spoilt = video(frames, height=4, width=4)
        spoilt[:, frame] = torch.nan
        with torch.enable_grad():  # all frames at once
            model(spoilt)
        columns.append([state[0].detach().isnan().flatten(1).any(dim=1) for state in seen])
    for handle in handles:
        handle.remove()
    return [torch.stack(group, dim=1) for group in zip(*columns, strict=True)]


def blocks_of(frames: int, length: int) -> torch.Tensor:
    block = torch.arange(frames) // length
    return block[:, None] == block[None, :]


@pytest.mark.parametrize("as_published", [True, False])
def test_reach_doubles_with_depth(as_published: bool) -> None:
    found = reach(encoder(as_published=as_published), 16)
    for window, matrix in zip(VIDEO["window_sizes"], found, strict=True):
        assert torch.equal(matrix, blocks_of(16, window[0])), window


def test_beyond_the_longest_window_frames_meet_unless_as_published() -> None:
    published, ours = reach(encoder(as_published=True), 32)[-1], reach(encoder(), 32)[-1]
    assert torch.equal(published, blocks_of(32, 16))
    assert not published[15, 16] and ours[15, 16] and ours[16, 15]
    assert not ours[0, 31]  # but not over two windows: the work stays linear


def test_the_published_model_has_the_published_reach() -> None:
    config = LfVilaVideoConfig()
    assert [window[0] for window in config.window_sizes] == [2, 4, 8, 16, 16, 32]
    assert config.tap == 3 and config.width(config.tap) == 512 and config.tokens_per_frame == 6
    assert config.grid(192, 320) == (3, 5) and config.hidden_size == 1024


@pytest.mark.parametrize("as_published", [True, False])
@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 48, 80), (3, 48, 80), (17, 48, 80), (5, 9, 3), (4, 50, 82)]
)
@torch.no_grad()
def test_any_number_and_size_of_frames(as_published: bool, frames: int, height: int, width: int) -> None:
    model = encoder(as_published=as_published)
    out = model(video(frames, 2, height, width))
    extra = width % 2 if as_published else 0  # D5: an empty frame, and the last row and column cut
    grid = (
        model.config.grid(height - height % 2, width - width % 2) if as_published else model.config.grid(height, width)
    )
    assert out.last_hidden_state.shape == out.local_hidden_state.shape == (2, frames + extra, *grid, 64)
    assert out.last_hidden_state.isfinite().all()


@torch.no_grad()
def test_batched_is_one_by_one(ours: LfVilaVideoEncoder) -> None:
    several = video(7, 3)
    torch.testing.assert_close(
        ours(several).last_hidden_state[1:2], ours(several[1:2]).last_hidden_state, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("as_published", [True, False])
@pytest.mark.parametrize("frames", [64, 71])
def test_in_stretches_is_whole(as_published: bool, frames: int) -> None:
    model, pixels = encoder(as_published=as_published), video(frames, height=24, width=40)
    assert model.frames_at_once(frames) == (frames if as_published and frames % 32 else 32)
    whole = model(pixels)
    with torch.no_grad():
        stretched = model(pixels)
    torch.testing.assert_close(stretched.last_hidden_state, whole.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stretched.local_hidden_state, whole.local_hidden_state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_fills_up_the_edges_is_not_seen(ours: LfVilaVideoEncoder) -> None:
    """A map of 4 x 6 in windows of 3 x 5 equals one whose windows are computed with the real tokens only."""
    attention = ours.groups[0].blocks[0].attn
    tokens = torch.randn(1, 2, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    found = attention(tokens)
    for rows in (slice(0, 3), slice(3, 4)):
        for columns in (slice(0, 5), slice(5, 6)):
            alone = attention(tokens[:, :, rows, columns])
            torch.testing.assert_close(found[:, :, rows, columns], alone, atol=1e-5, rtol=1e-5)


def test_biases_are_those_of_their_offsets() -> None:
    table, window = (3, 3, 5), (2, 2, 3)
    index = relative_positions(window, table)
    places = [(t, h, w) for t in range(2) for h in range(2) for w in range(3)]
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            t, h, w = (a - b for a, b in zip(one, other, strict=True))
            assert index[i, j] == ((t + 2) * 5 + h + 2) * 9 + w + 4
    assert torch.equal(relative_positions((1, 3, 5), table), relative_positions(table, table)[:15, :15])


def test_a_mask_parts_what_a_shift_brought_together() -> None:
    mask = window_mask((6, 10), (1, 3, 5), (1, 2))
    assert mask.shape == (4, 15, 15) and not mask[0].any()
    last = mask[3].view(3, 5, 3, 5)
    assert last[0, 0, 1, 2] == 0 and last[0, 0, 2, 2] == -100 and last[0, 0, 1, 3] == -100 and last[2, 4, 2, 3] == 0


def test_biases_are_kept_in_evaluation_until_the_weights_change() -> None:
    model, pixels = encoder(), video(4)
    attention = model.groups[0].blocks[0].attn
    with torch.no_grad():
        first = model(pixels).last_hidden_state
        kept = dict(attention._cached)
        model(pixels)
        assert kept and all(attention._cached[key] is value for key, value in kept.items())
        attention.relative_position_bias_table.add_(1.5 * torch.randn(attention.relative_position_bias_table.shape))
        changed = model(pixels).last_hidden_state
    assert (changed - first).abs().max() > 1e-3
    with torch.enable_grad():
        torch.testing.assert_close(model(pixels).last_hidden_state, changed, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_only_a_few_biases_are_kept() -> None:
    model, attention = encoder(), None
    for frames in range(1, 16):
        model(video(frames, height=8, width=8))
        attention = model.groups[-1].blocks[0].attn
        assert len(attention._cached) <= 4
    assert attention is not None and [kind[0][0] for kind in attention._cached] == [12, 13, 14, 15]


def test_branches_are_dropped_in_training_only() -> None:
    model, pixels = encoder(drop_path_rate=0.9), video(2, height=8, width=8)
    assert torch.equal(model(pixels).last_hidden_state, model(pixels).last_hidden_state)
    model.train()
    assert not torch.equal(model(pixels).last_hidden_state, model(pixels).last_hidden_state)


def test_gradients_reach_every_parameter(ours: LfVilaVideoEncoder) -> None:
    ours.zero_grad()
    out = ours(video(4))
    (out.last_hidden_state.square().sum() + out.local_hidden_state.square().sum()).backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.any()] == []
    ours.zero_grad()


def test_what_was_made_for_an_answer_serves_training(ours: LfVilaVideoEncoder) -> None:
    relative_positions.cache_clear()
    with torch.inference_mode():
        ours(video(4))
    ours(video(4)).last_hidden_state.sum().backward()
    assert all(p.grad is not None for name, p in ours.named_parameters() if "relative_position_bias_table" in name)
    ours.zero_grad()


def test_wrong_shapes_are_refused(ours: LfVilaVideoEncoder) -> None:
    for shape in ((1, 3, 4, 48, 80), (1, 0, 3, 48, 80), (4, 3, 48, 80)):
        with pytest.raises(ValueError, match=r"must be \(B, T, 3, H, W\)"):
            ours(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least a patch of 2 x 2 pixels, found 8 x 1"):
        encoder(as_published=True)(video(1, height=8, width=1))
    with pytest.raises(ValueError, match="an entry for each group, found 4, 3 and 4"):
        LfVilaVideoConfig(**(VIDEO | {"num_heads": [1, 2, 4]}))
    with pytest.raises(ValueError, match="group 1 is 16 wide, which 3 heads do not divide"):
        LfVilaVideoConfig(**(VIDEO | {"num_heads": [1, 3, 4, 4]}))


def test_attention_is_fused(ours: LfVilaVideoEncoder) -> None:
    """No kernel but the fused one is allowed here, and the result is that of plain arithmetic."""
    pixels = video(5, height=24, width=40)
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = ours(pixels).last_hidden_state
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        plain = ours(pixels).last_hidden_state
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
