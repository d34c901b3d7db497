"""Caption metrics: values of the COCO caption evaluation (pycocoevalcap 1.2) on the same words, and what must hold."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from videollm.errors import DataError
from videollm.evaluation.narration import bleu, caption_scores, cider, rouge_l, words_of

CAPTIONS = [
    "#c c picks a knife from the drawer",
    "c opens the fridge with the left hand",
    "the man looks around",
    "c puts a knife a knife a knife on the table",
]
REFERENCES = [
    ["#c c picks a knife", "c takes the knife from the drawer"],
    ["c opens a fridge"],
    ["the man x looks around the kitchen", "a man looks at the table", "he looks around"],
    ["c puts the knife on the table"],
]


def test_equal_to_the_published_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Bleu(4)``, ``Rouge()`` and ``Cider()`` of pycocoevalcap gave these for the tokens of `words_of`."""
    monkeypatch.setattr(shutil, "which", lambda name: None)  # no Java
    found = caption_scores(CAPTIONS, REFERENCES)
    stated = (0.6874999999785157, 0.6267831705070227, 0.5078137620710835, 0.4253665667393072)
    assert found.bleu == pytest.approx(stated, abs=1e-12)
    assert found.rouge_l == pytest.approx(0.7071394423523822, abs=1e-12)
    assert found.cider == pytest.approx(3.096748454384562, abs=1e-12)
    said, meant = [words_of(c) for c in CAPTIONS], [[words_of(r) for r in texts] for texts in REFERENCES]
    of_each = [0.82993197, 0.53197674, 0.7721519, 0.69449715]
    assert [rouge_l(c, r) for c, r in zip(said, meant, strict=True)] == pytest.approx(of_each, abs=1e-8)
    assert cider(said, meant) == pytest.approx([5.20196399, 1.67677939, 2.52450496, 2.98374548], abs=1e-8)
    assert found.count == 4 and found.meteor is None


def test_the_same_words_are_best_and_others_worst() -> None:
    texts = ["c cuts the red onion", "a dog runs over the green field"]
    best = caption_scores(texts, [[text] for text in texts])
    assert best.bleu == pytest.approx((1, 1, 1, 1)) and best.rouge_l == pytest.approx(1)
    assert best.cider == pytest.approx(10)
    worst = caption_scores(["w x y z", "w x y z"], [[text] for text in texts])
    assert max(worst.bleu) < 1e-6 and worst.rouge_l == worst.cider == 0


def test_short_captions_pay_and_repetition_does_not() -> None:
    long = [[["c", "cuts", "the", "red", "onion", "on", "the", "board"]]]
    assert bleu([["c", "cuts"]], long)[0] == pytest.approx(2.718281828 ** (1 - 8 / 2), rel=1e-6)
    assert bleu([["the"] * 8], long)[0] == pytest.approx(2 / 8)


def test_an_empty_caption_counts_as_nothing() -> None:
    found = caption_scores(["", "c cuts"], [["c cuts"], ["c cuts"]])
    assert found.rouge_l == 0.5 and 0 <= found.cider <= 10


def test_words() -> None:
    assert words_of("Don't CUT the Crème-brûlée_2!") == [
        "don", "'", "t", "cut", "the", "creme", "-", "brulee", "_", "2", "!",
    ]  # fmt: skip


@pytest.mark.parametrize(("captions", "references"), [([], []), (["a"], []), (["a", "b"], [["a"], []])])
def test_what_cannot_be_scored(captions: list[str], references: list[list[str]]) -> None:
    with pytest.raises(DataError, match="at least one reference of each clip"):
        caption_scores(captions, references)


def test_meteor_is_the_published_program_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    captions, references = ["a man takes a knife"], [["the man grabs the knife", "a man takes a knife"]]
    if importlib.util.find_spec("pycocoevalcap") is not None and shutil.which("java") is not None:
        assert caption_scores(captions, references).meteor == pytest.approx(1.0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert caption_scores(captions, references).meteor is None
