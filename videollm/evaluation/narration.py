"""Scores of captions against what people wrote: BLEU, ROUGE-L and CIDEr, as published results have them, without Java.

METEOR's published form is a Java program with a table of synonyms: it is run where it is installed, and tables of
scores say so where it is not.

Notation: a caption and its references are lists of tokens.
Source: Papineni et al., "BLEU" (2002); Lin, "ROUGE" (2004); Vedantam et al., "CIDEr" (2015), in the variant CIDEr-D
that the COCO caption evaluation computes and LaViLa's tables report under the name of CIDEr; Chen et al., "Microsoft
COCO Captions" (2015) for all settings.
"""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import DataError

Tokens = Sequence[str]

WHY_NO_METEOR = (
    "METEOR is not computed: its published form is a Java program; pip install 'videollm[meteor]', and install Java"
)

_LONGEST = 4
_TINY, _SMALL = 1e-15, 1e-9
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0


def words_of(text: str) -> list[str]:
    """Lower-case words and single punctuation marks, without accents, as BERT's uncased tokenizer first splits a text.

    Published scores split rare words further into pieces: for these give the tokenizer's own ``tokenize``.
    """
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+|[^\w\s]|_", plain)


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions, each the higher the better.

    Attributes:
        count: of captions.
        bleu: BLEU-1 to BLEU-4, from 0 to 1, of all captions together.
        rouge_l: mean of captions, from 0 to 1.
        cider: mean of captions, from 0 to 10; how rare a phrase is is counted over the references given.
        meteor: of all captions together, from 0 to 1; None where the program or Java is not installed.
    """

    count: int
    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider: float
    meteor: float | None = None


def caption_scores(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenise: Callable[[str], Tokens] = words_of,
) -> CaptionScores:
    """Score captions.

    Args:
        captions: one of each clip.
        references: of each clip, at least one.
        tokenise: texts to tokens.

    Raises:
        DataError: for no captions, or another number of references, or a clip without any.
    """
    if not captions or len(captions) != len(references) or not all(references):
        raise DataError(
            f"{len(captions)} captions and references of {len(references)} clips were given; give one caption and at "
            f"least one reference of each clip"
        )
    said = [list(tokenise(caption)) for caption in captions]
    meant = [[list(tokenise(text)) for text in texts] for texts in references]
    scores = zip(said, meant, strict=True)
    rouge = [rouge_l(caption, texts) for caption, texts in scores]
    rarity = cider(said, meant)
    return CaptionScores(
        len(said), bleu(said, meant), sum(rouge) / len(rouge), sum(rarity) / len(rarity), meteor(said, meant)
    )


def bleu(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of a corpus; the reference whose length is closest counts for brevity, the shorter of two."""
    right, all_of = [0] * _LONGEST, [0] * _LONGEST
    length = wanted_length = 0
    for caption, texts in zip(captions, references, strict=True):
        length += len(caption)
        wanted_length += min((abs(len(text) - len(caption)), len(text)) for text in texts)[1]
        for n in range(_LONGEST):
            said = _ngrams(caption, n + 1)
            most = Counter[Tokens]()
            for text in texts:
                most |= _ngrams(text, n + 1)
            right[n] += sum((said & most).values())
            all_of[n] += max(0, len(caption) - n)
    ratio = (length + _TINY) / (wanted_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, found = 1.0, []
    for n in range(_LONGEST):
        product *= (right[n] + _TINY) / (all_of[n] + _SMALL)
        found.append(product ** (1 / (n + 1)) * brevity)
    return found[0], found[1], found[2], found[3]


def rouge_l(caption: Tokens, references: Sequence[Tokens]) -> float:
    """ROUGE-L of one caption: precision and recall each of the reference that is best for it."""
    common = [_longest_common(caption, text) for text in references]
    precision = max(n / len(caption) if caption else 0.0 for n in common)
    recall = max(n / len(text) if text else 0.0 for n, text in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    square = _ROUGE_BETA**2
    return (1 + square) * precision * recall / (recall + square * precision)


def cider(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """CIDEr-D of each caption, from 0 to 10."""
    occurs: Counter[Tokens] = Counter()
    for texts in references:
        occurs.update({gram for text in texts for n in range(_LONGEST) for gram in _ngrams(text, n + 1)})
    clips = math.log(len(references))

    def vectors(text: Tokens) -> list[dict[Tokens, float]]:
        counts = [_ngrams(text, n + 1) for n in range(_LONGEST)]
        return [{gram: k * (clips - math.log(max(1, occurs[gram]))) for gram, k in of.items()} for of in counts]

    scores = []
    for caption, texts in zip(captions, references, strict=True):
        said, total = vectors(caption), 0.0
        for text in texts:
            # The published code takes the number of pairs of words for the length.
            longer = max(0, len(caption) - 1) - max(0, len(text) - 1)
            near = math.exp(-(longer**2) / (2 * _CIDER_SIGMA**2))
            total += near * sum(map(_clipped_cosine, said, vectors(text))) / _LONGEST
        scores.append(10 * total / len(texts))
    return scores


def meteor(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float | None:
    """METEOR 1.5 of a corpus by its published program, from 0 to 1; None where it or Java is not installed."""
    if importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None:
        return None
    from pycocoevalcap.meteor.meteor import Meteor  # pyright: ignore[reportMissingImports]

    said = {place: [" ".join(caption)] for place, caption in enumerate(captions)}
    meant = {place: [" ".join(text) for text in texts] for place, texts in enumerate(references)}
    score, _ = Meteor().compute_score(meant, said)
    return float(score)


def _clipped_cosine(said: dict[Tokens, float], meant: dict[Tokens, float]) -> float:
    """A cosine in which a phrase that is said more often than meant counts no more than meant."""
    lengths = math.sqrt(sum(v * v for v in said.values())) * math.sqrt(sum(v * v for v in meant.values()))
    product = sum(min(value, meant[gram]) * meant[gram] for gram, value in said.items() if gram in meant)
    return product / lengths if lengths else product


def _ngrams(tokens: Tokens, n: int) -> Counter[Tokens]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _longest_common(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            diagonal, row[place] = row[place], diagonal + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
