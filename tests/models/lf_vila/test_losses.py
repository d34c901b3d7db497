"""The losses: what is corrected of the published ones, and what they order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests import fresh
from videollm.models.lf_vila import losses


def vectors(batch: int, positions: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(batch, positions, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def draw(anchors: list[list[int]], candidates: list[list[int]], negatives: list[int]) -> losses.MtcDraw:
    return losses.MtcDraw(torch.tensor(anchors), torch.tensor(candidates), torch.tensor(negatives))


def test_draws_are_distinct_positions_and_repeatable() -> None:
    one, two = (losses.draw_mtc(50, 4, 2, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.anchors, two.anchors) and torch.equal(one.negatives, two.negatives)
    assert one.anchors.shape == (50, 2) and one.candidates.shape == (50, 3) and one.negatives.max() == 3
    assert all(len(set(row)) == 3 for row in one.candidates.tolist())
    assert losses.draw_mtc(3, 2, 5, 5).anchors.shape == (3, 2)


def test_the_nearest_in_time_is_right_and_ties_are_left_out() -> None:
    drawn = draw([[0, 3], [1, 2]], [[3, 1], [2, 0]], [0, 0])
    assert losses.mtc_labels(drawn).tolist() == [1, 0, losses.IGNORED, 0]
    three = draw([[2]], [[1, 3, 0]], [0])  # D3: 1 and 3 are equally near to 2, 0 is not
    assert losses.mtc_labels(three).tolist() == [losses.IGNORED]
    assert losses.mtc_labels(three, as_published=True).tolist() == [0]


def test_negatives_are_of_other_videos() -> None:
    clips, said = vectors(3, 2, 0), vectors(3, 2, 1)
    drawn = draw([[0], [0], [0]], [[0, 1]] * 3, [1, 0, 1])
    logits = losses.mtc_logits(said, clips, drawn, 3, 1.0)
    assert logits.shape == (3, 5) and logits[:, 4].isinf().all()  # of three videos there are two others
    torch.testing.assert_close(logits[0, 2:4], torch.stack([said[0, 0] @ clips[2, 1], said[0, 0] @ clips[1, 0]]))
    published = losses.mtc_logits(said, clips, drawn, 3, 1.0, as_published=True)
    torch.testing.assert_close(published[0, 2], said[0, 0] @ clips[0, 1])  # D2: of the same video
    assert published.isfinite().all()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_losses_are_numbers_for_any_batch(batch: int) -> None:
    clips, said = vectors(batch, 4, 0).requires_grad_(), vectors(batch, 4, 1)
    drawn = losses.draw_mtc(batch, 4, 2, 2, torch.Generator().manual_seed(0))
    found = losses.mtc(clips, said, drawn, 3, 0.05).loss
    found.backward()
    assert found.isfinite() and clips.grad is not None and clips.grad.isfinite().all()
    tied = draw([[1]] * batch, [[0, 2]] * batch, [0] * batch)  # D4
    assert losses.mtc(clips, said, tied, 3, 0.05).loss == 0
    assert losses.mtc(clips, said, tied, 3, 0.05, as_published=True).loss.isnan()


def test_the_right_order_costs_less_than_the_reverse() -> None:
    clips = vectors(4, 4, 3)
    drawn = losses.draw_mtc(4, 4, 4, 4, torch.Generator().manual_seed(1))
    right, reverse = (losses.mtc(clips, said, drawn, 3, 0.05).loss for said in (clips, clips.flip(1)))
    assert right < 0.2 * reverse


def test_mismatched_halves() -> None:
    for batch, videos in ((1, [0]), (2, [1, 1]), (3, [2, 1, 2]), (4, [1, 0, 2, 3]), (7, [2, 0, 1, 3, 4, 5, 6])):
        shown, matched = losses.mismatched(batch)
        assert shown.tolist() == videos
        assert matched.tolist() == [int(place == video) for place, video in enumerate(videos)]
    assert losses.mismatched(2, as_published=True)[0].tolist() == [0, 1]  # D7


def test_masked_words() -> None:
    ids = torch.randint(5, 1000, (40, 4, 50), generator=torch.Generator().manual_seed(0))
    ids[:, :, 0], ids[:, :, 40:] = 2, 0
    special = torch.tensor([0, 1, 2, 3, 4])
    hidden, labels = losses.mask_words(ids, special, 4, 1000, generator=torch.Generator().manual_seed(1))
    chosen = labels != losses.IGNORED
    assert not chosen[:, :, 0].any() and not chosen[:, :, 40:].any()
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(hidden[~chosen], ids[~chosen])
    words = ids.numel() - 11 * 160
    assert chosen.sum() / words == pytest.approx(0.15, abs=0.01)
    assert (hidden[chosen] == 4).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (hidden[chosen] == ids[chosen]).float().mean() == pytest.approx(0.1, abs=0.03)


def test_one_process_gathers_nothing() -> None:
    rows = vectors(2, 3, 0)
    assert losses.gathered(rows) is rows


def _one_of_two(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=2, rank=rank)
    clips, said = (one.chunk(2)[rank].clone().requires_grad_() for one in (vectors(6, 4, 0), vectors(6, 4, 1)))
    drawn = losses.draw_mtc(6, 4, 2, 2, torch.Generator().manual_seed(2))
    everything = losses.gathered(clips), losses.gathered(said)
    ordered = losses.mtc(*everything, drawn, 3, 0.05).loss
    _, by_video, by_text = losses.global_contrastive(everything[0][:, 0], everything[1][:, 0], 0.05)
    (ordered + by_video + by_text).backward()
    torch.save(
        {"loss": ordered.detach() + by_video.detach() + by_text.detach(), "grad": clips.grad}, folder / str(rank)
    )
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_large_batch(tmp_path: Path) -> None:
    fresh.run(_one_of_two, (0, tmp_path), (1, tmp_path))
    clips, said = vectors(6, 4, 0).requires_grad_(), vectors(6, 4, 1)
    drawn = losses.draw_mtc(6, 4, 2, 2, torch.Generator().manual_seed(2))
    _, by_video, by_text = losses.global_contrastive(clips[:, 0], said[:, 0], 0.05)
    whole = losses.mtc(clips, said, drawn, 3, 0.05).loss + by_video + by_text
    whole.backward()
    parts = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2)]
    assert clips.grad is not None
    for rank, part in enumerate(parts):
        torch.testing.assert_close(part["loss"], whole.detach())
        # Each process adds up the gradients of both; a trainer averages over the two of them.
        torch.testing.assert_close(part["grad"] / 2, clips.grad.chunk(2)[rank], atol=1e-6, rtol=1e-5)
