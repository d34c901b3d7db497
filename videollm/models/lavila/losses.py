"""What LaViLa's models learn by: contrastive and ranking losses of clips and texts, and the loss of captions.

Notation: B pairs, D width, L tokens. Embeddings have length 1.
Source: Zhao et al., "LaViLa" (2022), section 4 and appendix; Radford et al., "CLIP" (2021); Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup" (2021) for `cached_contrastive_step`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Contrast:
    """A contrastive loss and how often the right text came first.

    Attributes:
        loss: float ``()``.
        accuracy: share of clips (of all processes) whose own text is nearest, float ``()``.
        accuracy_human, accuracy_pseudo: the same of pairs with a person's, and with a model's words; None where no
            indicators were given; nan where there is no such pair.
        humans: pairs with a person's words; None where no indicators were given.
    """

    loss: torch.Tensor
    accuracy: torch.Tensor
    accuracy_human: torch.Tensor | None = None
    accuracy_pseudo: torch.Tensor | None = None
    humans: torch.Tensor | None = None


def gather(states: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in order of their ranks; gradients flow back to each. Alone: the rows themselves.

    Every process must hold the same number of rows.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return states
    if torch.distributed.get_world_size() == 1:
        return states
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(states.contiguous()))


def contrastive_loss(
    video_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    *,
    is_human: torch.Tensor | None = None,
    pseudo_logit_scale: torch.Tensor | float | None = None,
) -> Contrast:
    """Symmetric cross-entropy over the pairs of all processes.

    Args:
        video_embeds, text_embeds: float ``(B, D)``, of length 1; row i of one belongs to row i of the other.
        logit_scale: inverse of the temperature, float ``()``.
        is_human: bool ``(B,)``, whether a text is a person's words; then pairs of two models' words are scaled by
            ``pseudo_logit_scale``, and mixed ones by the geometric mean of the two.
        pseudo_logit_scale: None: the same as ``logit_scale``.
    """
    videos, texts = gather(video_embeds), gather(text_embeds)
    similarity = videos @ texts.mT
    humans = None
    if is_human is None:
        logits = logit_scale * similarity
    else:
        humans = gather(is_human.to(similarity.dtype)).bool()
        pseudo = logit_scale if pseudo_logit_scale is None else torch.as_tensor(pseudo_logit_scale).to(similarity)
        roots = torch.where(humans, logit_scale.sqrt(), pseudo.sqrt())
        logits = similarity * roots[:, None] * roots[None, :]
    own = torch.arange(len(logits), device=logits.device)
    cross_entropy = nn.functional.cross_entropy
    loss = (cross_entropy(logits, own) + cross_entropy(logits.mT, own)) / 2
    with torch.no_grad():
        right = (logits.argmax(dim=1) == own).float()
    if humans is None:
        return Contrast(loss, right.mean())
    return Contrast(loss, right.mean(), right[humans].mean(), right[~humans].mean(), humans.sum())


def max_margin_loss(
    similarity: torch.Tensor, margin: float = 0.2, *, weights: torch.Tensor | None = None, keep_diagonal: bool = False
) -> torch.Tensor:
    """Every other text of a clip, and clip of a text, is to be less similar than its own by a margin.

    Args:
        similarity: float ``(B, B)``, of clips (rows) and texts.
        margin: 0.2 as published for EPIC-Kitchens retrieval.
        weights: float ``(B,)``, of each pair, e.g. its relevancy: its margin is that many times as large (published
            with a margin of 0.4).
        keep_diagonal: as in one published variant: a pair is compared with itself, too, which adds a constant.

    Returns:
        float ``()``, the mean over all comparisons.
    """
    own = similarity.diagonal()[:, None]
    wanted = margin if weights is None else margin * weights[:, None].to(similarity)
    hinge = torch.stack([(wanted - own + others).relu() for others in (similarity, similarity.mT)])
    if keep_diagonal:
        return hinge.mean()
    others = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return hinge[:, others].mean()


@dataclass(frozen=True)
class CaptionLoss:
    """What a caption's tokens cost.

    Attributes:
        loss: float ``()``, mean over learned tokens (or over all, as published).
        accuracy: share of learned tokens that came first, float ``()``.
        perplexity: mean over captions of exp(mean cost of its learned tokens), float ``()``.
        token_losses: float ``(B, L)``, 0 where nothing is learned.
    """

    loss: torch.Tensor
    accuracy: torch.Tensor
    perplexity: torch.Tensor
    token_losses: torch.Tensor


def caption_loss(
    logits: torch.Tensor, targets: torch.Tensor, *, ignore_index: int = -100, as_published: bool = False
) -> CaptionLoss:
    """Cross-entropy of the tokens of captions.

    Args:
        logits: float ``(B, L, vocabulary)``, of the token at each place (not of the one after it).
        targets: int ``(B, L)``.
        ignore_index: targets that are not learned.
        as_published: divide by all places, padding included, so that long captions weigh less the more padding their
            batch has. Published together with an ``ignore_index`` of 0, the pad, which is also an exclamation mark.
    """
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=ignore_index, reduction="none")
    learned = targets != ignore_index
    counts = learned.sum(dim=1).clamp(min=1)
    total = losses.sum() / (losses.numel() if as_published else learned.sum().clamp(min=1))
    with torch.no_grad():
        right = (logits.argmax(dim=-1) == targets) & learned
        accuracy = right.sum() / learned.sum().clamp(min=1)
        perplexity = (losses.sum(dim=1) / counts).exp().mean()
    return CaptionLoss(total, accuracy, perplexity, losses)


def cached_contrastive_step(
    embed: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
    pieces: Sequence[Any],
    loss_of: Callable[[torch.Tensor, torch.Tensor], Contrast],
    *,
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward,
    without_sync: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Contrast:
    """One backward pass of a contrastive batch that does not fit in memory, in pieces; gradients as of the whole batch.

    All pieces are embedded without gradients; the loss of all of them gives the gradient of each embedding; then each
    piece is embedded again, and that gradient sent back through it. Random numbers (dropout) are the same both times.

    Args:
        embed: unit embeddings of clips and texts, each float ``(b, D)``, of a piece.
        pieces: the batch.
        loss_of: the loss of all embeddings. In several processes no parameter may be learned by it alone: the
            temperature is frozen, as published, or its gradient averaged by the caller.
        backward: an accelerator's own, e.g. ``accelerator.backward``.
        without_sync: of a model in several processes, e.g. ``model.no_sync``: all pieces but the last run in it.

    Returns:
        the loss, without a graph.

    Raises:
        ValueError: for no pieces.
    """
    if not pieces:
        raise ValueError("a contrastive step needs at least one piece of a batch, found none")
    states: list[RandomState] = []
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        for piece in pieces:
            states.append(RandomState())
            kept.append(embed(piece))
    videos, texts = (torch.cat(side).detach().requires_grad_() for side in zip(*kept, strict=True))
    contrast = loss_of(videos, texts)
    # The loss itself sends gradients to embeddings, and to the temperature: its processes are in step already.
    with without_sync():
        backward(contrast.loss)
    assert videos.grad is not None and texts.grad is not None
    sizes = [len(video) for video, _ in kept]
    gradients = list(zip(videos.grad.split(sizes), texts.grad.split(sizes), strict=True))
    for place, (piece, state, (of_videos, of_texts)) in enumerate(zip(pieces, states, gradients, strict=True)):
        with contextlib.nullcontext() if place == len(pieces) - 1 else without_sync(), state.again():
            video, text = embed(piece)
            backward((video * of_videos).sum() + (text * of_texts).sum())
    return Contrast(contrast.loss.detach(), *[
        value.detach() if isinstance(value, torch.Tensor) else value
        for value in (contrast.accuracy, contrast.accuracy_human, contrast.accuracy_pseudo, contrast.humans)
    ])  # fmt: skip


class RandomState:
    """The state of all random number generators, to be had once more."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    @contextlib.contextmanager
    def again(self):
        """Draw the same numbers inside, and go on as before after it."""
        with torch.random.fork_rng():
            torch.set_rng_state(self.cpu)
            for index, state in enumerate(self.devices):
                torch.cuda.set_rng_state(state, index)
            yield
