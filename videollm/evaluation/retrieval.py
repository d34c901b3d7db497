"""Scores of retrieval: where the right one stands among all that could be found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RECALL_AT = (1, 5, 10, 50)


def ranks(similarity: np.ndarray) -> np.ndarray:
    """The place of each query's own item: 1 more than the number of items that are strictly more similar.

    Args:
        similarity: float ``(queries, items)``; the item of query i is item i.

    Returns:
        int64 ``(queries,)``, from 1. Of equally similar items the own one counts as the first; the published code of
        LF-VILA counted each of its possible places as a query of its own.

    Raises:
        ValueError: for a matrix with fewer items than queries, or without queries.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or not 1 <= len(similarity) <= similarity.shape[1]:
        raise ValueError(f"ranks needs (queries, items), an item for each query, found {similarity.shape}")
    own = np.diag(similarity)[:, None]
    return (similarity > own).sum(axis=1) + 1


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
