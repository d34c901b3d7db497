"""Ranks: of ties, of what is not a number, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from videollm.evaluation.retrieval import ranks, retrieval_scores


def test_places() -> None:
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.3, 0.2, 0.1]])
    assert ranks(similarity).tolist() == [1, 2, 3] and ranks(similarity.T).tolist() == [1, 1, 2.5]
    scores = retrieval_scores(similarity, recall_at=(1, 2))
    assert scores == pytest.approx({"R1": 1 / 3, "R2": 2 / 3, "MedR": 2.0, "MeanR": 2.0})


def test_a_model_to_which_all_are_alike_finds_nothing() -> None:
    scores = retrieval_scores(np.ones((9, 9)))
    assert scores["R1"] == 0.0 and scores["MeanR"] == scores["MedR"] == 5.0


def test_more_items_than_queries() -> None:
    assert ranks(np.array([[0.1, 0.2, 0.3, 0.4]])).tolist() == [4]


def test_what_cannot_be_ranked() -> None:
    for shape in ((2, 1), (0, 0), (3,)):
        with pytest.raises(ValueError, match="an item for each query"):
            ranks(np.zeros(shape))
    with pytest.raises(ValueError, match="not a number"):
        ranks(np.array([[np.nan, 0.0], [0.0, 0.0]]))
