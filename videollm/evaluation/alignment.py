"""Scores of spans of time, and of answers about long videos.

Source: Gao et al., "TALL: Temporal Activity Localization via Language Query" (2017) for recall at an overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Span = tuple[float, float]
"""Start and end, seconds."""

OVERLAPS = (0.3, 0.5, 0.7)


def temporal_iou(found: Span, true: Span) -> float:
    """The share of the time of two spans together that is in both, from 0 to 1; of two equal moments 1.

    Raises:
        ValueError: for a span that ends before it starts, or is not finite.
    """
    for start, end in (found, true):
        if not (np.isfinite(start) and np.isfinite(end)) or end < start:
            raise ValueError(f"a span starts before it ends, found {start:g} to {end:g} seconds")
    together = max(found[1], true[1]) - min(found[0], true[0])
    if together == 0:
        return 1.0
    return max(min(found[1], true[1]) - max(found[0], true[0]), 0.0) / together


def alignment_scores(
    found: Sequence[Span], true: Sequence[Span], overlaps: Sequence[float] = OVERLAPS
) -> dict[str, float]:
    """How well the sentences of paragraphs were found in videos.

    Args:
        found, true: the span of each sentence, all paragraphs behind each other.
        overlaps: at which a sentence counts as found.

    Returns:
        ``mIoU``, the mean overlap, and ``IoU@0.5`` ... the share of sentences found, from 0 to 1.

    Raises:
        ValueError: for none, or another number of spans than there are sentences.
    """
    if len(found) != len(true) or not found:
        raise ValueError(f"a span is needed for each sentence, found {len(found)} for {len(true)}")
    each = np.array([temporal_iou(one, other) for one, other in zip(found, true, strict=True)])
    return {"mIoU": float(each.mean()), **{f"IoU@{overlap:g}": float((each >= overlap).mean()) for overlap in overlaps}}


def answer_accuracy(logits: Any, truths: Any) -> float:
    """The share of right answers, of all questions alike.

    The published code averaged over batches, so that questions of a short last batch counted more.

    Args:
        logits: float ``(questions, ..., answers)``; for frames of spans ``(questions, frames, 2)``.
        truths: int ``(questions, ...)``.

    Raises:
        ValueError: for none, or shapes that do not belong together.
    """
    logits, truths = np.asarray(logits), np.asarray(truths)
    if logits.shape[:-1] != truths.shape or not truths.size:
        raise ValueError(f"each truth needs its logits, found {truths.shape} and {logits.shape}")
    return float((logits.argmax(axis=-1) == truths).mean())
