"""Overlaps and accuracies."""

from __future__ import annotations

import numpy as np
import pytest

from videollm.evaluation.alignment import alignment_scores, answer_accuracy, temporal_iou


@pytest.mark.parametrize(
    ("found", "true", "iou"),
    [
        ((0, 10), (0, 10), 1.0),
        ((0, 10), (5, 15), 1 / 3),
        ((2, 4), (0, 10), 0.2),
        ((0, 1), (2, 3), 0.0),
        ((0, 1), (1, 2), 0.0),
        ((3, 3), (3, 3), 1.0),
        ((3, 3), (0, 10), 0.0),
    ],
)
def test_overlap(found: tuple[float, float], true: tuple[float, float], iou: float) -> None:
    assert temporal_iou(found, true) == pytest.approx(iou) == temporal_iou(true, found)


def test_spans_that_are_none() -> None:
    for span in ((2.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="a span starts before it ends"):
            temporal_iou(span, (0.0, 1.0))
    with pytest.raises(ValueError, match="a span is needed for each sentence, found 0 for 1"):
        alignment_scores([], [(0.0, 1.0)])


def test_shares_of_sentences() -> None:
    scores = alignment_scores([(0, 10), (0, 5), (0, 1)], [(0, 10), (0, 10), (5, 6)])
    assert scores == pytest.approx({"mIoU": 0.5, "IoU@0.3": 2 / 3, "IoU@0.5": 2 / 3, "IoU@0.7": 1 / 3})


def test_every_question_counts_alike() -> None:
    assert answer_accuracy([[1, 0], [0, 1], [0, 1]], [0, 1, 0]) == pytest.approx(2 / 3)
    assert answer_accuracy(np.zeros((2, 4, 2)), np.array([[0, 0, 1, 1], [0, 1, 1, 1]])) == pytest.approx(3 / 8)
    with pytest.raises(ValueError, match="each truth needs its logits"):
        answer_accuracy([[1, 0]], [0, 1])
