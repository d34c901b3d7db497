"""Sentences to runs of clips, against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from videollm.models.lf_vila import align, align_seconds


def best_of_all(similarity: np.ndarray) -> float:
    """The largest sum that any rising runs without overlap give."""
    gain = similarity - similarity.mean(axis=1, keepdims=True)
    sentences, clips = similarity.shape
    best = -np.inf
    for edges in itertools.combinations(range(clips + sentences), 2 * sentences):
        runs = [(edges[2 * s] - s, edges[2 * s + 1] - s - 1) for s in range(sentences)]
        best = max(best, sum(gain[s, first : last + 1].sum() for s, (first, last) in enumerate(runs)))
    return best


@pytest.mark.parametrize(("sentences", "clips"), [(1, 1), (1, 5), (2, 2), (2, 6), (3, 7), (4, 4)])
def test_the_best_of_all(sentences: int, clips: int) -> None:
    for seed in range(20):
        similarity = np.random.default_rng(seed).normal(size=(sentences, clips))
        spans = align(similarity)
        gain = similarity - similarity.mean(axis=1, keepdims=True)
        assert all(first <= last for first, last in spans)
        assert all(one[1] < two[0] for one, two in itertools.pairwise(spans))
        found = sum(gain[s, first : last + 1].sum() for s, (first, last) in enumerate(spans))
        assert found == pytest.approx(best_of_all(similarity))


def test_scenes_are_found_in_order() -> None:
    scenes = np.repeat([0, 1, 2, 0], [3, 2, 4, 3])
    similarity = (scenes[None, :] == np.array([0, 2, 0])[:, None]).astype(float)
    assert align(similarity) == [(0, 2), (5, 8), (9, 11)]  # alike scenes at both ends are told apart by their order


def test_seconds_and_more_sentences_than_clips() -> None:
    clips = [(0.0, 4.0), (4.0, 10.0)]
    assert align_seconds(np.array([[0.1, 0.9]]), clips) == [(4.0, 10.0)]
    spans = align_seconds(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), clips)
    assert spans == [(0.0, 2.0), (2.0, 4.0), (4.0, 10.0)]


def test_what_cannot_be_aligned() -> None:
    for similarity in (np.zeros((3, 2)), np.zeros((0, 2)), np.zeros(3)):
        with pytest.raises(ValueError, match="at least as many clips"):
            align(similarity)
    with pytest.raises(ValueError, match="not all finite"):
        align(np.array([[np.nan, 1.0]]))
