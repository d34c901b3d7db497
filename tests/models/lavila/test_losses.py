"""Losses: gathered negatives, two temperatures, gradient caching; their published values are in tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed

from tests import fresh
from tests.models.lavila.small import clips, dual_encoder, words
from videollm.models.lavila.losses import (
    RandomState,
    cached_contrastive_step,
    caption_loss,
    contrastive_loss,
    max_margin_loss,
)


def units(count: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_equal_temperatures_make_the_plain_loss() -> None:
    videos, texts, scale = units(6, 0), units(6, 1), torch.tensor(9.0)
    humans = torch.tensor([True, False, True, True, False, False])
    plain = contrastive_loss(videos, texts, scale)
    for pseudo in (None, 9.0):
        both = contrastive_loss(videos, texts, scale, is_human=humans, pseudo_logit_scale=pseudo)
        torch.testing.assert_close(both.loss, plain.loss)
        assert both.humans == 3 and both.accuracy == plain.accuracy
    other = contrastive_loss(videos, texts, scale, is_human=humans, pseudo_logit_scale=2.0)
    assert abs(other.loss - plain.loss) > 1e-3


def test_right_pairs_cost_least() -> None:
    videos, scale = units(5, 0), torch.tensor(50.0)
    right = contrastive_loss(videos, videos, scale)
    wrong = contrastive_loss(videos, videos.roll(1, dims=0), scale)
    assert right.loss < 1e-2 < wrong.loss and right.accuracy == 1 and wrong.accuracy == 0


def test_margins() -> None:
    similarity = torch.tensor([[0.9, 0.8], [0.1, 0.5]])
    # Of four comparisons two are within the margin: 0.2 - 0.9 + 0.8 and 0.2 - 0.5 + 0.8.
    assert max_margin_loss(similarity, 0.2).item() == pytest.approx((0.1 + 0 + 0 + 0.5) / 4)
    assert max_margin_loss(similarity, 0.2, keep_diagonal=True).item() == pytest.approx((0.6 + 4 * 0.2) / 8)
    halved = max_margin_loss(similarity, 0.4, weights=torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(halved, max_margin_loss(similarity, 0.2))


def test_captions_of_nothing_but_padding() -> None:
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = caption_loss(logits, torch.full((2, 3), -100)).loss
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_gradient_caching_is_the_whole_batch() -> None:
    """Loss and gradients of six pairs in pieces of two equal those of the six at once; with dropout, too."""
    pixels, ids = clips(6), words(6, 50)
    grads, losses = [], []
    for pieces in (1, 3):
        model = dual_encoder().train()
        size = 6 // pieces
        parts = list(zip(pixels.split(size), ids.split(size), strict=True))

        def embed(part: tuple[torch.Tensor, torch.Tensor], model=model) -> tuple[torch.Tensor, torch.Tensor]:
            out = model(*part)
            return out.video_embeds, out.text_embeds

        def loss_of(videos: torch.Tensor, texts: torch.Tensor, model=model):
            return contrastive_loss(videos, texts, model.logit_scale)

        if pieces == 1:
            out = model(pixels, ids, return_loss=True)
            out.loss.backward()
            losses.append(out.loss.detach())
        else:
            losses.append(cached_contrastive_step(embed, parts, loss_of).loss)
        grads.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1])
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)


def test_gradient_caching_draws_the_same_numbers_twice() -> None:
    """An embedding with dropout: what is sent back belongs to what was embedded first."""
    weight = torch.nn.Parameter(torch.eye(6))
    drawn: list[torch.Tensor] = []

    def embed(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.nn.functional.dropout(part @ weight, 0.5)
        drawn.append(found.detach())
        return found, part @ weight

    torch.manual_seed(0)
    parts = list(units(4, 3).split(2))
    cached_contrastive_step(embed, parts, lambda v, t: contrastive_loss(v, t, torch.tensor(1.0)))
    assert len(drawn) == 4 and torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    with pytest.raises(ValueError, match="at least one piece"):
        cached_contrastive_step(embed, [], lambda v, t: contrastive_loss(v, t, torch.tensor(1.0)))
    state = RandomState()
    first = torch.rand(3)
    after = torch.rand(1)
    with state.again():
        assert torch.equal(torch.rand(3), first)
    torch.set_rng_state(state.cpu)
    assert torch.equal(torch.rand(3), first) and torch.equal(torch.rand(1), after)


def _rank(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        weight = torch.nn.Parameter(torch.eye(6))
        mine = slice(2 * rank, 2 * rank + 2)
        videos = torch.nn.functional.normalize(units(4, 0)[mine] @ weight, dim=-1)
        texts = torch.nn.functional.normalize(units(4, 1)[mine] @ weight.mT, dim=-1)
        humans = torch.tensor([True, False, False, True])[mine]
        out = contrastive_loss(videos, texts, torch.tensor(7.0), is_human=humans, pseudo_logit_scale=3.0)
        out.loss.backward()
        torch.save({"loss": out.loss.detach(), "grad": weight.grad, "humans": out.humans}, folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_negatives_of_all_processes(tmp_path: Path) -> None:
    """Two processes with two pairs each: the loss of four, and, averaged over processes, its gradients."""
    fresh.run(_rank, (0, tmp_path), (1, tmp_path))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    weight = torch.nn.Parameter(torch.eye(6))
    videos = torch.nn.functional.normalize(units(4, 0) @ weight, dim=-1)
    texts = torch.nn.functional.normalize(units(4, 1) @ weight.mT, dim=-1)
    humans = torch.tensor([True, False, False, True])
    whole = contrastive_loss(videos, texts, torch.tensor(7.0), is_human=humans, pseudo_logit_scale=3.0)
    whole.loss.backward()
    for one in found:
        torch.testing.assert_close(one["loss"], whole.loss.detach())
        assert one["humans"] == 2
    torch.testing.assert_close((found[0]["grad"] + found[1]["grad"]) / 2, weight.grad)
