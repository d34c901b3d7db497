"""Exact scores of answers: right is the whole answer, but for capitals, punctuation and spaces.

A table is scene x question type, and beside each score stands what always giving the most frequent answer of that cell
would score: a mean over scenes or types hides coin flips.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from videollm.data.dialogue import REFUSAL, UNKNOWN
from videollm.data.world import COLOURS, SHAPES

_PUNCTUATION = re.compile(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)|_")
_SHAPE = re.compile(rf"\b({'|'.join(SHAPES)})s?\b")
_THING = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")


def normalised(text: str) -> str:
    """Lower case, without punctuation (a point between digits stays) and with single spaces."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


REFUSALS = frozenset({normalised(REFUSAL), normalised(UNKNOWN)})


@dataclass(frozen=True)
class Item:
    """One question, its truth and its answer.

    Attributes:
        condition: what was changed or held out, see `videollm.evaluation.benchmark.WorldBenchmark`.
        row: the kind of the scene; "sound" for questions about sound alone; "outside" for those that must be refused.
        type: of the question.
        film: the file.
        question, truth, answer: in words.
        unchanged_truth: the truth of the film as it was, where the condition changes what is right.
    """

    condition: str
    row: str
    type: str
    film: str
    question: str
    truth: str
    answer: str
    unchanged_truth: str | None = None

    @property
    def right(self) -> bool:
        return normalised(self.answer) == normalised(self.truth)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.right}


@dataclass(frozen=True)
class Cell:
    """Scores of one question type on one kind of scene.

    Attributes:
        count: questions; films: files that they are about.
        score: share of right answers; baseline: what the most frequent truth would score.
    """

    count: int
    films: int
    score: float
    baseline: float


def cells(items: Iterable[Item]) -> dict[tuple[str, str, str], Cell]:
    """(condition, row, type) -> scores."""
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.condition, item.row, item.type), []).append(item)
    return {
        key: Cell(
            len(group),
            len({item.film for item in group}),
            sum(item.right for item in group) / len(group),
            Counter(normalised(item.truth) for item in group).most_common(1)[0][1] / len(group),
        )
        for key, group in sorted(groups.items())
    }


def table(found: dict[tuple[str, str, str], Cell], condition: str, rows: Sequence[str], wanted: int) -> str:
    """One condition as text: a line a question type, a column a kind of scene, ``score baseline`` in each cell.

    Cells with fewer than ``wanted`` questions say how many they have.
    """
    present = [row for row in rows if any(key[:2] == (condition, row) for key in found)]
    types = sorted({key[2] for key in found if key[0] == condition})
    width = 15
    lines = [f"{condition}: score and majority baseline" + (f" (n: fewer than {wanted} questions)" if wanted else "")]
    lines.append(f"{'':<18}" + "".join(f"{row:<{width}}" for row in present))
    for kind in types:
        line = f"{kind:<18}"
        for row in present:
            cell = found.get((condition, row, kind))
            text = "" if cell is None else f"{cell.score:.2f} {cell.baseline:.2f}"
            if cell is not None and cell.count < wanted:
                text += f" n{cell.count}"
            line += f"{text:<{width}}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def invents(answer: str) -> bool:
    """Whether an answer about a clip without drawn things names one: a shape, or a coloured shape."""
    return bool(_SHAPE.search(normalised(answer)))


def names_thing(answer: str) -> bool:
    """Whether an answer names a coloured shape, e.g. "a red circle"."""
    return bool(_THING.search(normalised(answer)))


def refuses(answer: str) -> bool:
    """Whether an answer is one of the sentences for what the model cannot tell."""
    return normalised(answer) in REFUSALS


DESCRIBING = ("caption", "caption_both", "narration")


def honesty(items: Sequence[Item]) -> list[str]:
    """Lines on refusing and inventing, each with its counts."""
    lines: list[str] = []
    for condition in dict.fromkeys(item.condition for item in items):
        part = [item for item in items if item.condition == condition]
        outside = [item for item in part if item.row == "outside"]
        inside = [item for item in part if item.row != "outside" and not refuses(item.truth)]
        plain = [item for item in part if item.row == "plain" and item.type in DESCRIBING]
        changed = [
            item
            for item in part
            if item.unchanged_truth is not None and normalised(item.unchanged_truth) != normalised(item.truth)
        ]
        if outside:
            count = sum(refuses(item.answer) for item in outside)
            lines.append(f"{condition}: refused outside the world {_share(count, len(outside))}")
        if inside:
            count = sum(refuses(item.answer) for item in inside)
            lines.append(f"{condition}: wrongly refused inside it {_share(count, len(inside))}")
        if plain:
            count = sum(invents(item.answer) for item in plain)
            lines.append(
                f"{condition}: descriptions of clips without drawn things that name one {_share(count, len(plain))}"
            )
        if changed:
            stuck = sum(normalised(item.answer) == normalised(item.unchanged_truth or "") for item in changed)
            moved = sum(item.right for item in changed)
            lines.append(
                f"{condition}: where the change makes another answer right: gave it {_share(moved, len(changed))}, "
                f"kept the old one {_share(stuck, len(changed))}"
            )
    return lines


def _share(count: int, total: int) -> str:
    return f"{count / total:.3f} ({count} of {total})"
