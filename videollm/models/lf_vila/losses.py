"""LF-VILA's losses: whole videos and paragraphs, moments in time (MTC), masked words, matched or not.

Notation: B samples, K positions in time, D width, L tokens.
Source: Sun et al. 2022, section 3.3 (MTC) and 3.4; the numbers and the slips of the released code are in the index of
`LfVilaConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

IGNORED = -100


def global_contrastive(
    video: torch.Tensor, text: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each video against all paragraphs and each paragraph against all videos.

    Args:
        video, text: float ``(B, D)``, unit vectors; row i of one belongs to row i of the other.
        temperature: of the softmax.

    Returns:
        the logits, float ``(B, B)`` with videos as rows, and the two losses, of videos and of paragraphs; the published
        loss is their sum, not their mean.
    """
    logits = video @ text.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return logits, functional.cross_entropy(logits, target), functional.cross_entropy(logits.T, target)


@dataclass(frozen=True)
class MtcDraw:
    """Which positions MTC looks at.

    Attributes:
        anchors: int64 ``(B, number of anchors)``, distinct positions of each sample.
        candidates: int64 ``(B, number of candidates)``, likewise, the same for all anchors and both directions.
        negatives: int64 ``(B,)``: the one position of each sample that serves the others as a negative.
    """

    anchors: torch.Tensor
    candidates: torch.Tensor
    negatives: torch.Tensor


def draw_mtc(
    batch: int, positions: int, anchors: int, candidates: int, generator: torch.Generator | None = None
) -> MtcDraw:
    """Draw positions.

    Args:
        batch, positions: B and K; anchors and candidates are at most K.
        anchors, candidates: how many of each.
        generator: of torch's; None: its global one.
    """

    def some(count: int) -> torch.Tensor:
        return torch.rand(batch, positions, generator=generator).argsort(dim=1)[:, : min(count, positions)]

    return MtcDraw(some(anchors), some(candidates), torch.randint(positions, (batch,), generator=generator))


def mtc_labels(draw: MtcDraw, as_published: bool = False) -> torch.Tensor:
    """The candidate nearest in time to each anchor.

    Args:
        draw: the positions.
        as_published: tell a tie by the first and last candidate alone (D3), which is right for two candidates.

    Returns:
        int64 ``(B x anchors,)``, an index into the candidates; -100 where two are equally near.
    """
    distance = (draw.anchors[:, :, None] - draw.candidates[:, None, :]).abs().flatten(0, 1)
    count = distance.shape[1]
    # Of equals the first: argmin alone does not promise that.
    nearest = (distance * count + torch.arange(count, device=distance.device)).argmin(dim=1)
    if as_published:
        tied = distance[:, 0] == distance[:, -1]
    else:
        tied = (distance == distance.min(dim=1, keepdim=True).values).sum(dim=1) > 1
    return nearest.masked_fill(tied, IGNORED)


def mtc_logits(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    draw: MtcDraw,
    negatives: int,
    temperature: float,
    as_published: bool = False,
) -> torch.Tensor:
    """Each anchor against the candidates of its own sample and negatives of others.

    Args:
        anchors, candidates: float ``(B, K, D)``, unit vectors: of sentences and of clips, or the other way round.
        draw: the positions.
        negatives: how many other samples give a negative: those before it in the batch, round its end.
        temperature: of the softmax.
        as_published: begin with the sample itself (D2), and go round the batch again where it is too small.

    Returns:
        float ``(B x anchors, candidates + negatives)``; -inf where the batch has no further sample.
    """
    batch, own = len(anchors), torch.arange(len(anchors), device=anchors.device)
    from_anchors = anchors[own[:, None], draw.anchors.to(anchors.device)]
    within = from_anchors @ candidates[own[:, None], draw.candidates.to(anchors.device)].mT
    others = candidates[own, draw.negatives.to(anchors.device)]
    back = torch.arange(negatives, device=anchors.device) + (0 if as_published else 1)
    across = from_anchors @ others[(own[:, None] - back) % batch].mT
    if not as_published:
        across = across.masked_fill(back >= batch, -torch.inf)
    return torch.cat([within, across], dim=2).flatten(0, 1) / temperature


@dataclass(frozen=True)
class Mtc:
    """What the loss that orders moments in time is made of.

    Attributes:
        text_logits: sentences against clips, see `mtc_logits`.
        video_logits: clips against sentences.
        labels: of both, see `mtc_labels`.
        text_loss, video_loss: of the two directions.
    """

    text_logits: torch.Tensor
    video_logits: torch.Tensor
    labels: torch.Tensor
    text_loss: torch.Tensor
    video_loss: torch.Tensor

    @property
    def loss(self) -> torch.Tensor:
        """The sum of both directions, as published."""
        return self.text_loss + self.video_loss


def mtc(
    video: torch.Tensor,
    text: torch.Tensor,
    draw: MtcDraw,
    negatives: int,
    temperature: float,
    as_published: bool = False,
) -> Mtc:
    """Multimodal temporal contrastive loss: of two moments of a video, the one nearer in time is the better match.

    Args:
        video, text: float ``(B, K, D)``, unit vectors of clips and of sentences; position i of one belongs to i of the
            other.
        draw, negatives, temperature, as_published: see `mtc_logits` and `mtc_labels`. With ``as_published`` a batch
            without a usable anchor gives NaN (D4), otherwise 0.

    Source: Sun et al. 2022, section 3.3.1.
    """
    labels = mtc_labels(draw, as_published).to(video.device)
    text_logits = mtc_logits(text, video, draw, negatives, temperature, as_published)
    video_logits = mtc_logits(video, text, draw, negatives, temperature, as_published)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        used = (labels != IGNORED).sum()
        return total / (used if as_published else used.clamp(min=1))

    return Mtc(text_logits, video_logits, labels, loss(text_logits), loss(video_logits))


def mask_words(
    input_ids: torch.Tensor,
    special_ids: torch.Tensor,
    mask_token_id: int,
    vocab_size: int,
    share: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide words that are to be found again: of the chosen, 8 of 10 behind the mask, 1 behind another word.

    Args:
        input_ids: int64, any shape.
        special_ids: int64 ``(n,)``: never chosen (start, end, padding, the mask itself).
        mask_token_id, vocab_size: of the tokenizer.
        share: of the words to choose.
        generator: of torch's; None: its global one.

    Returns:
        ids of the same shape, and labels: the id that was chosen, -100 elsewhere.

    Source: Devlin et al., "BERT" (2019), section 3.1.
    """
    chance = torch.rand(2, *input_ids.shape, generator=generator)
    another = torch.randint(vocab_size, input_ids.shape, generator=generator)
    chosen = (chance[0] < share).to(input_ids.device) & ~torch.isin(input_ids, special_ids.to(input_ids.device))
    fate = chance[1].to(input_ids.device)
    hidden = torch.where(chosen & (fate < 0.8), mask_token_id, input_ids)
    hidden = torch.where(chosen & (fate >= 0.9), another.to(input_ids.device), hidden)
    return hidden, input_ids.masked_fill(~chosen, IGNORED)


def mismatched(batch: int, as_published: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Which video each text is shown with, so that half of them do not match.

    Args:
        batch: B.
        as_published: with one sample in the half to mismatch, it keeps its own video (D7).

    Returns:
        int64 ``(B,)`` the index of a video, and int64 ``(B,)`` 1 where it is the text's own, by the published rule: the
        first half is rolled by one within itself, the rest stays. A batch of one has nothing to be mismatched with.
    """
    half = batch // 2
    videos = torch.arange(batch)
    videos[:half] = videos[:half].roll(1)
    if half == 1 and not as_published:
        videos[0] = batch - 1
    return videos, (torch.arange(batch) >= half).long()


def gathered(features: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in the order of their ranks, with gradients to all of them.

    Args:
        features: float ``(B, ...)``, as many rows in each process.

    Returns:
        float ``(B x processes, ...)``; the same tensor where there is one process. With gradients averaged over
        processes, a loss on it equals that of one large batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features
    if torch.distributed.get_world_size() == 1:
        return features
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(features.contiguous()))
