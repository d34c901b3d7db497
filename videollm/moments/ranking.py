"""One ranking out of several ways of finding, and stretches out of windows.

Ways of finding do not fit on one scale: a cosine of 0.5 is much for one encoder and nothing for another. A vector's fit
is therefore counted from what is usual for this query, in standard deviations over a sample of all windows; a fit of
words as a share of the best one. Scores are the weighted mean of both.

BM25 does not know of order: "green cross" fits a white cross on a green ground as well as a green cross. So words that
stand next to each other in the query and in the text count beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from videollm.moments.moment import Found, Reason

OUTSTANDING = 6.0
"""Standard deviations above the usual that count as a perfect fit. A vector weighs so many times what words weigh."""
LITTLE = 1.0
"""A full-text fit (BM25) below is that of words which are everywhere; fits are shares of at least this."""
ABOUT_AS_WELL = 0.1
"""A window is joined to a better one that it overlaps where its score is at most so much lower; else it is left out."""
APART = 0.5
"""So much of its full-text fit is left to a text in which none of the query's words stand side by side."""
IN_WORDS: tuple[Reason, ...] = ("narrated", "heard in words")

Fits = Mapping[Reason, Mapping[str, float]]
Usual = Mapping[Reason, tuple[float, float]]


def ranks_of(fits: Mapping[str, float]) -> dict[str, int]:
    """Ranks from 1; what fits equally well has the same: the order in which it was stored tells nothing."""
    first: dict[float, int] = {}
    for place, fit in enumerate(sorted((round(fit, 6) for fit in fits.values()), reverse=True), 1):
        first.setdefault(fit, place)
    return {key: first[round(fit, 6)] for key, fit in fits.items()}


@lru_cache(maxsize=8192)  # the texts of some searches: many windows tell the same
def pairs_of(words: str) -> frozenset[tuple[str, str]]:
    """Words that stand side by side within a sentence, articles left out."""
    sentences = (re.findall(r"[^\W_]+", part) for part in re.split(r"[.;:!?()\n]", words.casefold()))
    told = ([word for word in sentence if word not in ("a", "an", "the")] for sentence in sentences)
    return frozenset(pair for sentence in told for pair in pairwise(sentence))


def in_order(fits: Mapping[str, float], texts: Mapping[str, str], words: str) -> dict[str, float]:
    """Full-text fits by which a text that has the query's words side by side comes before one that has them apart.

    Pairs of words that stand in none of the texts are those of the question ("when is"), and do not count.

    Args:
        fits: of the texts that were found, by id.
        texts: these texts.
        words: the query.
    """
    pairs = pairs_of(words)
    there = {key: pairs & pairs_of(texts[key]) for key in fits}
    known = len(frozenset().union(*there.values()))
    if not known:
        return dict(fits)
    return {key: fit * (APART + (1 - APART) * len(there[key]) / known) for key, fit in fits.items()}


def fused(ways: Fits, usual: Usual, same_words: bool = False) -> dict[str, float]:
    """Scores from 0 to 1 of everything that was found in some way.

    Args:
        ways: by way of finding, how well each window fits that was found so: a cosine, or a full-text fit.
        usual: mean and standard deviation of the cosines of a vector with a sample of all windows.
        same_words: the same words were looked for in both columns: the better of the two counts.
    """
    keys = {key for fits in ways.values() for key in fits}
    scores = dict.fromkeys(keys, 0.0)
    weight = 0.0
    told: list[dict[str, float]] = []
    for way, fits in ways.items():
        if way in IN_WORDS:
            best = max([*fits.values(), LITTLE])
            told.append({key: fits.get(key, 0.0) / best for key in keys})
            continue
        mean, deviation = usual[way]
        least = min(fits.values(), default=mean)  # of what is not among the nearest no more is known
        weight += OUTSTANDING
        for key in keys:
            # Cosines of float32 differ by a little where what was seen is the same.
            far = round(fits.get(key, least) - mean, 6) / max(deviation, 1e-6)
            scores[key] += min(max(far, 0.0), OUTSTANDING)
    if same_words and told:
        told = [{key: max(one[key] for one in told) for key in keys}]
    weight += len(told)
    return {key: (score + sum(one[key] for one in told)) / max(weight, 1e-9) for key, score in scores.items()}


def joined(
    rows: Mapping[str, Mapping[str, Any]],
    ways: Fits,
    usual: Usual,
    paths: Mapping[str, str],
    limit: int,
    same_words: bool = False,
) -> list[Found]:
    """Stretches, the best first. Windows that overlap a better one belong to it, if they fit about as well, and are
    left out otherwise.

    Args:
        rows: the windows that were found, by id.
        ways, usual, same_words: see `fused`.
        paths: of the videos, by content.
        limit: how many at most.
    """
    scores = fused(ways, usual, same_words)
    ranks: dict[Reason, dict[str, int]] = {way: ranks_of(fits) for way, fits in ways.items()}

    def place(key: str) -> tuple[float, int, str, float]:
        # Of what fits perfectly, that which fits better than others comes first.
        missed = sum(ranked.get(key, len(ranked) + 1) for ranked in ranks.values())
        return -round(scores[key], 6), missed, rows[key]["video"], rows[key]["start_seconds"]

    order = sorted(scores, key=place)
    spans: list[list[Any]] = []
    for key in order:
        row, score = rows[key], scores[key]
        start, end = row["start_seconds"], row["end_seconds"]
        better = next((s for s in spans if rows[s[0]]["video"] == row["video"] and start < s[3] and s[2] < end), None)
        if better is None:
            if len(spans) < limit:
                spans.append([key, score, start, end])
        elif score >= better[1] - ABOUT_AS_WELL:
            better[2], better[3] = min(better[2], start), max(better[3], end)
    found = []
    for key, score, start, end in spans:
        row = rows[key]
        why: dict[Reason, int] = {way: ranked[key] for way, ranked in ranks.items() if key in ranked}
        found.append(Found(paths[row["video"]], start, end, score, why, row["narration"], row["sound"]))
    return found
