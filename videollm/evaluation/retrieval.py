"""Scores of retrieval and of choice: where the right one stands among all that could be found.

Notation: V videos, S sentences, C classes. Higher is more similar. Sums are made in float64.
Source: Damen et al., "Rescaling Egocentric Vision" (2022), section 6.4 and its released code, for multi-instance
retrieval; Lin et al., "Egocentric Video-Language Pretraining" (2022) for EgoMCQ; Sigurdsson et al., "Actor and
Observer" (2018) for Charades-Ego.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError

RECALL_AT = (1, 5, 10, 50)


def ranks(similarity: np.ndarray) -> np.ndarray:
    """The place of each query's own item: behind all that is more similar, in the middle of what is as similar.

    Args:
        similarity: float ``(queries, items)``; the item of query i is item i.

    Returns:
        float64 ``(queries,)``, from 1: of equals the mean of their places, so that a model to which all items are alike
        finds nothing. The published code of LF-VILA counted each of these places as a query of its own.

    Raises:
        ValueError: for a matrix with fewer items than queries, without queries, or with what is not a number.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or not 1 <= len(similarity) <= similarity.shape[1]:
        raise ValueError(f"ranks needs (queries, items), an item for each query, found {similarity.shape}")
    if np.isnan(similarity).any():
        raise ValueError("some similarities are not a number; were the vectors finite?")
    own = np.diag(similarity)[:, None]
    return (similarity > own).sum(axis=1) + ((similarity == own).sum(axis=1) + 1) / 2


def retrieval_scores(similarity: np.ndarray, recall_at: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """Recall, median and mean rank of one direction; of the other with the matrix transposed.

    Args:
        similarity: see `ranks`; of paragraphs (rows) and videos it is paragraph-to-video retrieval.
        recall_at: the places up to which the own item counts as found.

    Returns:
        ``R1``, ``R5`` ... as shares from 0 to 1, ``MedR`` and ``MeanR`` from 1.
    """
    places = ranks(similarity)
    scores = {f"R{k}": float((places <= k).mean()) for k in recall_at}
    return {**scores, "MedR": float(np.median(places)), "MeanR": float(places.mean())}


# ---- several right ones: EPIC-Kitchens


@dataclass(frozen=True)
class MultiInstance:
    """Multi-instance retrieval, shares from 0 to 1.

    Attributes:
        map_video_to_text, map_text_to_video: mean average precision over queries that have a positive; nan without any.
        ndcg_video_to_text, ndcg_text_to_video: mean normalised discounted cumulative gain over queries to which
            anything is relevant; nan without any.
        without_positive: queries of both directions that do not count in the mAP. With one of them the published code's
            mAP is nan.
    """

    map_video_to_text: float
    map_text_to_video: float
    ndcg_video_to_text: float
    ndcg_text_to_video: float
    without_positive: int

    @property
    def map(self) -> float:
        """Mean of both directions."""
        return (self.map_video_to_text + self.map_text_to_video) / 2

    @property
    def ndcg(self) -> float:
        """Mean of both directions."""
        return (self.ndcg_video_to_text + self.ndcg_text_to_video) / 2


def multi_instance(similarity: np.ndarray, relevancy: np.ndarray) -> MultiInstance:
    """EPIC-Kitchens' multi-instance retrieval.

    Args:
        similarity: float ``(V, S)``.
        relevancy: float ``(V, S)`` from 0 to 1; entries of exactly 1 are the positives of the mAP.

    Raises:
        DataError: if the two do not fit each other, or hold something that is no number.
    """
    similarity, relevancy = _tables(similarity, relevancy)
    to_text, to_video = average_precisions(similarity, relevancy), average_precisions(similarity.T, relevancy.T)
    return MultiInstance(
        _mean(to_text),
        _mean(to_video),
        _mean(ndcgs(similarity, relevancy)),
        _mean(ndcgs(similarity.T, relevancy.T)),
        int(np.isnan(to_text).sum() + np.isnan(to_video).sum()),
    )


def average_precisions(similarity: np.ndarray, relevancy: np.ndarray) -> np.ndarray:
    """The average precision of each row, by the benchmark's own definition.

    At each positive (an entry of exactly 1) the precision counts all relevancies ranked so far, fractions among them,
    not the positives alone. Of equally similar items the first one ranks first.

    Args:
        similarity, relevancy: float ``(queries, items)``.

    Returns:
        float64 ``(queries,)``; nan for a query without a positive.
    """
    ranked = np.take_along_axis(relevancy, np.argsort(-similarity, axis=1, kind="stable"), axis=1)
    positive = ranked == 1
    precision = np.cumsum(ranked, axis=1) / np.arange(1, ranked.shape[1] + 1)
    counts = positive.sum(axis=1)
    return (precision * positive).sum(axis=1) / np.where(counts, counts, np.nan)


def ndcgs(similarity: np.ndarray, relevancy: np.ndarray) -> np.ndarray:
    """The normalised discounted cumulative gain of each row, cut at as many items as are relevant to it at all.

    Of equally similar items the last one ranks first, as in the benchmark's code (its mAP has it the other way round).

    Args:
        similarity, relevancy: float ``(queries, items)``.

    Returns:
        float64 ``(queries,)``; nan for a query to which nothing is relevant.
    """
    items = relevancy.shape[1]
    discount = 1 / np.log2(np.arange(2, items + 2))
    within = np.arange(items)[None] < (relevancy > 0).sum(axis=1)[:, None]
    gains = np.take_along_axis(relevancy, np.argsort(similarity, axis=1, kind="stable")[:, ::-1], axis=1)
    best = (-np.sort(-relevancy, axis=1) * discount * within).sum(axis=1)
    return (gains * discount * within).sum(axis=1) / np.where(best > 0, best, np.nan)


# ---- one of five: EgoMCQ

EGOMCQ_TYPES = {1: "inter_video", 2: "intra_video"}
"""What the types in the annotation are. The published code prints type 1 as "Intra-video" and type 2 as "Inter-video":
the names, not the numbers, were swapped there. Clips of one video (intra) are the harder choice."""


def egomcq(similarity: np.ndarray, answers: np.ndarray, types: np.ndarray) -> dict[str, float]:
    """Share of questions whose right clip is the most similar to the text, by type.

    Args:
        similarity: float ``(questions, 5)``.
        answers: int ``(questions,)``, the right clip.
        types: int ``(questions,)``, 1 or 2.

    Returns:
        ``inter_video`` and ``intra_video``, from 0 to 1; a type without questions is left out.

    Raises:
        DataError: for other types, or numbers of questions that differ.
    """
    similarity, answers, types = np.asarray(similarity), np.asarray(answers), np.asarray(types)
    if similarity.ndim != 2 or not len(similarity) == len(answers) == len(types):
        raise DataError(
            f"EgoMCQ needs scores (questions, choices), an answer and a type of each, found {similarity.shape}, "
            f"{answers.shape} and {types.shape}"
        )
    unknown = set(types.tolist()) - set(EGOMCQ_TYPES)
    if unknown:
        raise DataError(f"EgoMCQ has questions of types 1 and 2, found type {sorted(unknown)[0]}; use its egomcq.json")
    right = similarity.argmax(axis=1) == answers
    return {name: float(right[types == kind].mean()) for kind, name in EGOMCQ_TYPES.items() if (types == kind).any()}


# ---- classes: Charades-Ego, EPIC-Kitchens, EGTEA


@dataclass(frozen=True)
class ClassPrecisions:
    """Average precisions of classes.

    Attributes:
        map: their mean over classes that occur; nan if none does.
        of_class: float64 ``(C,)``, nan for a class that never occurs; with one the published code's mean is nan.
    """

    map: float
    of_class: np.ndarray


def charades_map(scores: np.ndarray, truths: np.ndarray) -> ClassPrecisions:
    """Charades-Ego: each class ranks all videos; those that have no class at all rank last.

    Args:
        scores: float ``(V, C)``.
        truths: ``(V, C)``, 1 where a class occurs in a video.

    Raises:
        DataError: if the two do not fit each other, or hold something that is no number.
    """
    scores, truths = _tables(scores, truths)
    ranked = np.where(truths.any(axis=1, keepdims=True), scores, -np.inf)
    found = average_precisions(ranked.T, (truths.T == 1).astype(np.float64))
    return ClassPrecisions(_mean(found), found)


@dataclass(frozen=True)
class Classification:
    """Shares from 0 to 1.

    Attributes:
        top1, top5: clips whose class has the highest score, or one of the five highest.
        mean_class_accuracy: of classes that occur among the truths, each counting the same.
        confusion: int64 ``(C, C)``, truths (rows) and what was said.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    confusion: np.ndarray


def classification(scores: np.ndarray, truths: np.ndarray, as_published: bool = False) -> Classification:
    """Scores of a classifier.

    Args:
        scores: float ``(clips, C)``.
        truths: int ``(clips,)``.
        as_published: a class that is said somewhere but never true counts in the mean, with an accuracy of 0.

    Raises:
        DataError: for truths that are no classes of the scores, or another number of clips.
    """
    scores, truths = np.asarray(scores, np.float64), np.asarray(truths)
    if scores.ndim != 2 or not len(scores) or truths.shape != scores.shape[:1]:
        raise DataError(
            f"classification needs (clips, classes) and a class of each, found {scores.shape}, {truths.shape}"
        )
    classes = scores.shape[1]
    if truths.min() < 0 or truths.max() >= classes:
        raise DataError(f"classes are 0 to {classes - 1} here, found {truths.min()} to {truths.max()} among the truths")
    said = scores.argmax(axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truths, said), 1)
    occurs = confusion.sum(axis=1)
    counted = (occurs > 0) | (confusion.sum(axis=0) > 0) if as_published else occurs > 0
    accuracy = confusion.diagonal()[counted] / np.maximum(occurs[counted], 1)
    return Classification(
        float((said == truths).mean()),
        float((order[:, :5] == truths[:, None]).any(axis=1).mean()),
        float(accuracy.mean()),
        confusion,
    )


def marginal(probabilities: np.ndarray, parts: np.ndarray, count: int, as_published: bool = False) -> np.ndarray:
    """Probabilities of verbs, or of nouns, from those of actions.

    Args:
        probabilities: float ``(clips, actions)``.
        parts: int ``(actions,)``, the verb (or noun) of each action.
        count: of verbs (or nouns).
        as_published: one that occurs in no action gets the probability of action 0, instead of 0.

    Returns:
        float64 ``(clips, count)``.
    """
    sums = np.zeros((len(probabilities), count))
    for action, part in enumerate(np.asarray(parts).tolist()):
        sums[:, part] += probabilities[:, action]
    if as_published:
        sums[:, np.setdiff1d(np.arange(count), parts)] = np.asarray(probabilities)[:, :1]
    return sums


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _tables(scores: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, truths = np.asarray(scores, np.float64), np.asarray(truths, np.float64)
    if scores.ndim != 2 or scores.shape != truths.shape or not scores.size:
        raise DataError(
            f"scores and truths must be two tables of one size, found {scores.shape} and {truths.shape}; score every "
            f"pair once"
        )
    if np.isnan(scores).any() or np.isnan(truths).any():
        raise DataError("scores or truths hold nan, which has no rank; look for what the model was given there")
    return scores, truths
