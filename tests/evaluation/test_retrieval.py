"""Retrieval and choice: small cases by hand, equals, bad input; published values are compared in tests/parity."""

from __future__ import annotations

import numpy as np
import pytest

from videollm.errors import DataError
from videollm.evaluation.retrieval import (
    average_precisions,
    charades_map,
    classification,
    egomcq,
    marginal,
    multi_instance,
    ndcgs,
)


def test_average_precision_by_hand() -> None:
    # Ranked: 1, 0.5, 1, 0. At the first positive 1 / 1, at the second (1 + 0.5 + 1) / 3.
    similarity, relevancy = np.array([[0.9, 0.8, 0.7, 0.6]]), np.array([[1, 0.5, 1, 0]])
    assert average_precisions(similarity, relevancy) == pytest.approx([(1 + 2.5 / 3) / 2])


def test_gain_by_hand() -> None:
    # Two items are relevant: the first two places count. Found 0 and 1; best 1 and 0.5.
    similarity, relevancy = np.array([[0.9, 0.8, 0.7]]), np.array([[0, 1, 0.5]])
    second = 1 / np.log2(3)
    assert ndcgs(similarity, relevancy) == pytest.approx([second / (1 + 0.5 * second)])


def test_equals_have_an_order() -> None:
    """The same on every machine: the first of equals in the mAP, the last in the nDCG."""
    similarity, relevancy = np.zeros((1, 40)), np.zeros((1, 40))
    relevancy[0, 0] = 1
    assert average_precisions(similarity, relevancy) == [1.0] and ndcgs(similarity, relevancy) == [0.0]
    assert average_precisions(similarity, relevancy[:, ::-1]) == [1 / 40]
    assert ndcgs(similarity, relevancy[:, ::-1]) == [1.0]


def test_queries_without_positives_are_left_out_and_counted() -> None:
    similarity, relevancy = np.eye(3), np.eye(3)
    assert multi_instance(similarity, relevancy).map == 1.0
    relevancy[1, 1] = 0.5
    found = multi_instance(similarity, relevancy)
    assert found.without_positive == 2 and found.map == 1.0 and found.ndcg == 1.0
    relevancy[1, 1] = 0.0
    assert multi_instance(similarity, relevancy).ndcg == 1.0
    assert np.isnan(multi_instance(similarity, np.zeros((3, 3))).map)


def test_types_of_questions_have_their_right_names() -> None:
    scores = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    found = egomcq(scores, np.array([0, 1, 1, 1]), np.array([1, 1, 2, 2]))
    assert found == {"inter_video": 0.5, "intra_video": 1.0}
    assert egomcq(scores[:2], np.array([0, 1]), np.array([2, 2])) == {"intra_video": 0.5}


def test_videos_without_a_class_rank_last() -> None:
    scores, truths = np.array([[0.9], [0.5], [0.1]]), np.array([[0], [1], [1]])
    assert charades_map(scores, truths).map == 1.0
    both = charades_map(np.hstack([scores, scores]), np.hstack([truths, [[1], [0], [0]]]))
    assert both.of_class == pytest.approx([(1 / 2 + 2 / 3) / 2, 1.0])


def test_classes_that_are_only_said() -> None:
    scores = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0.1, 0.9]])
    found = classification(scores, np.array([0, 1, 1]))
    assert found.top1 == pytest.approx(2 / 3) and found.top5 == 1.0
    assert found.mean_class_accuracy == 0.75 and found.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert classification(scores, np.array([0, 1, 1]), as_published=True).mean_class_accuracy == 0.5


def test_verbs_without_actions() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2]])
    assert marginal(probabilities, np.array([0, 2, 2]), 3) == pytest.approx(np.array([[0.5, 0, 0.5]]))
    assert marginal(probabilities, np.array([0, 2, 2]), 3, as_published=True)[0, 1] == 0.5


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (lambda: multi_instance(np.eye(2), np.eye(3)), "two tables of one size"),
        (lambda: multi_instance(np.zeros((0, 3)), np.zeros((0, 3))), "two tables of one size"),
        (lambda: charades_map(np.full((2, 2), np.nan), np.eye(2)), "hold nan"),
        (lambda: egomcq(np.eye(2), np.array([0, 1]), np.array([1, 3])), "found type 3"),
        (lambda: egomcq(np.eye(2), np.array([0]), np.array([1, 2])), "an answer and a type of each"),
        (lambda: classification(np.eye(2), np.array([0, 2])), "classes are 0 to 1 here"),
        (lambda: classification(np.eye(2), np.array([0])), "a class of each"),
    ],
)
def test_what_does_not_fit(measure, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        measure()
    assert "\n" not in str(caught.value)
