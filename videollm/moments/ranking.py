"""One ranking out of several ways of finding, and stretches out of windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videollm.moments.moment import Found, Reason

RANK_CONSTANT = 60
"""Of reciprocal rank fusion: a list adds 1 / (constant + rank). Source: Cormack et al. 2009, section 2."""
ABOUT_AS_WELL = 0.9
"""A window is joined to a better one that it overlaps from this share of its score on; below, it is left out."""
_IN_WORDS: tuple[Reason, ...] = ("narrated", "heard in words")


def ranks_of(fits: Mapping[str, float]) -> dict[str, int]:
    """Ranks from 1; what fits equally well has the same: the order in which it was stored tells nothing."""
    first: dict[float, int] = {}
    for place, fit in enumerate(sorted((round(fit, 6) for fit in fits.values()), reverse=True), 1):
        first.setdefault(fit, place)
    return {key: first[round(fit, 6)] for key, fit in fits.items()}


def fused(ways: Mapping[Reason, Mapping[str, float]]) -> dict[str, float]:
    """Scores from 0 to 1 of everything that was found in some way.

    Args:
        ways: how well each window fits that was found in a way, by its id; only the order counts.
    """
    counted = len(ways.keys() - set(_IN_WORDS)) + bool(ways.keys() & set(_IN_WORDS))
    best = max(counted, 1) / (RANK_CONSTANT + 1)  # words are found in one of the two columns, seldom in both
    scores: dict[str, float] = {}
    for fits in ways.values():
        for key, rank in ranks_of(fits).items():
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_CONSTANT + rank) / best
    return {key: min(1.0, score) for key, score in scores.items()}


def joined(
    rows: Mapping[str, Mapping[str, Any]],
    ways: Mapping[Reason, Mapping[str, float]],
    paths: Mapping[str, str],
    limit: int,
) -> list[Found]:
    """Stretches, the best first. Windows that overlap a better one belong to it, if they fit about as well, and are
    left out otherwise.

    Args:
        rows: the windows that were found, by id.
        ways: see `fused`.
        paths: of the videos, by content.
        limit: how many at most.
    """
    scores = fused(ways)
    ranks = {way: ranks_of(fits) for way, fits in ways.items()}
    order = sorted(scores, key=lambda key: (-scores[key], rows[key]["video"], rows[key]["start_seconds"]))
    spans: list[list[Any]] = []
    for key in order:
        row, score = rows[key], scores[key]
        start, end = row["start_seconds"], row["end_seconds"]
        better = next((s for s in spans if rows[s[0]]["video"] == row["video"] and start < s[3] and s[2] < end), None)
        if better is None:
            if len(spans) < limit:
                spans.append([key, score, start, end])
        elif score >= ABOUT_AS_WELL * better[1]:
            better[2], better[3] = min(better[2], start), max(better[3], end)
    return [_found(key, rows[key], score, start, end, ranks, paths) for key, score, start, end in spans]


def _found(
    key: str,
    row: Mapping[str, Any],
    score: float,
    start: float,
    end: float,
    ranks: Mapping[Reason, Mapping[str, int]],
    paths: Mapping[str, str],
) -> Found:
    why = {way: found[key] for way, found in ranks.items() if key in found}
    return Found(paths[row["video"]], start, end, score, why, row["narration"], row["sound"])
