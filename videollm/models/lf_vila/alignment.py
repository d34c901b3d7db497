"""Where in a video the sentences of a paragraph happen, given that both go through time in one order.

Notation: S sentences, K clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def align(similarity: np.ndarray) -> list[tuple[int, int]]:
    """Match each sentence, in order, with a run of clips, so that the sum of what speaks for it is largest.

    What speaks for a clip is by how much it is more similar to the sentence than clips are on average: clips that are
    less similar stay without a sentence, but no sentence stays without a clip. Dynamic programming, exact, S x K steps.

    Args:
        similarity: float ``(S, K)``, S at most K, at least one of each.

    Returns:
        first and last clip of each sentence, rising and not overlapping.

    Raises:
        ValueError: for more sentences than clips, none, or numbers that are not finite.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    if similarity.ndim != 2 or not 1 <= similarity.shape[0] <= similarity.shape[1]:
        raise ValueError(f"align needs (sentences, clips), at least as many clips, found {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("the similarities are not all finite; were the vectors of one model, and not zero?")
    sentences, clips = similarity.shape
    gain = similarity - similarity.mean(axis=1, keepdims=True)

    # inside[s, k]: the best of clips 0..k where clip k is of sentence s; done[s, k]: where s has ended by then.
    inside = np.full((sentences, clips), -np.inf)
    done = np.full((sentences, clips), -np.inf)
    before = np.zeros(clips + 1)  # the best before the first sentence, by the number of clips passed
    for s in range(sentences):
        for k in range(s, clips):
            start = before[k]
            stay = inside[s, k - 1] if k else -np.inf
            inside[s, k] = gain[s, k] + max(start, stay)
            done[s, k] = max(inside[s, k], done[s, k - 1] if k else -np.inf)
        before = np.concatenate([[-np.inf], done[s]])

    spans: list[tuple[int, int]] = []
    k = clips - 1
    for s in reversed(range(sentences)):
        while k and done[s, k] == done[s, k - 1]:
            k -= 1
        last = k
        previous = np.zeros(clips + 1) if s == 0 else np.concatenate([[-np.inf], done[s - 1]])
        while k > s and inside[s, k - 1] > previous[k]:
            k -= 1
        spans.append((k, last))
        k -= 1
    return spans[::-1]


def align_seconds(similarity: np.ndarray, clip_seconds: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """`align`, in seconds; where there are more sentences than clips, clips are divided among them.

    Args:
        similarity: float ``(S, K)``, e.g. the products of the vectors of `embed_paragraph` and `embed_video`.
        clip_seconds: start and end of each clip.

    Returns:
        start and end of each sentence, never decreasing.
    """
    similarity = np.asarray(similarity)
    parts = -(-len(similarity) // max(len(clip_seconds), 1))
    edges = [
        (start + (end - start) * part / parts, start + (end - start) * (part + 1) / parts)
        for start, end in clip_seconds
        for part in range(parts)
    ]
    return [(edges[first][0], edges[last][1]) for first, last in align(np.repeat(similarity, parts, axis=1))]
