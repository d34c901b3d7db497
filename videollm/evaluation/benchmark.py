"""One benchmark: what an evaluation file may say, and how it is read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from videollm.data.world import SCENE_KINDS
from videollm.settings import load_settings

CONDITIONS = ("seen", "triples", "pairs", "new wordings", "no sound", "reversed")


@dataclass(frozen=True)
class Benchmark:
    """A measurement on films of the world, complete on its own.

    Attributes:
        name: of the folder under ``runs/evaluation`` and of the report.
        model: a name or folder for `videollm.models.hub.load`.
        first_film: the number of the first test scene of each kind; none is ever trained on.
        films: how many files of each kind of scene in each split.
        questions: wanted in each cell of the table; where a type of question does not occur often enough in the films,
            the cell has fewer, and says how many.
        kinds: the kinds of scenes (see `videollm.data.world.SCENE_KINDS`).
        conditions: what is measured: "seen" combinations in trained wordings; held-out "triples" and "pairs"; "new
            wordings" of seen combinations; "no sound", the same films with their sound removed; "reversed", with the
            order of their frames turned around.
        max_new_tokens: answers are cut after this many tokens.
        batch_rows: questions answered at once.
        workers: processes, of one thread each.
        films_folder: keep the films there, to look at them or to measure another model on them; None: they are removed.
    """

    name: str
    model: str = "tiny"
    first_film: int = 0
    films: int = 100
    questions: int = 200
    kinds: tuple[str, ...] = SCENE_KINDS
    conditions: tuple[str, ...] = CONDITIONS
    max_new_tokens: int = 96
    batch_rows: int = 192
    workers: int = 2
    films_folder: str | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name becomes a folder: use letters, digits, - and _, found {self.name!r}")
        if not 0 <= self.first_film < 9_000_000:
            raise ValueError(f"first_film must be from 0 to 9,000,000, found {self.first_film}")
        for name in ("films", "questions", "max_new_tokens", "batch_rows", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name, known in (("kinds", SCENE_KINDS), ("conditions", CONDITIONS)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name} has {value!r}; there are {', '.join(known)}{_near(value, known)}")
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name some of {', '.join(known)}")


def load_benchmark(path: str | Path) -> Benchmark:
    """Read a benchmark from YAML.

    Raises:
        ConfigError: no such file, not YAML, an unknown or missing key, a wrong type or value; the line names the file,
            the line and what to do.
    """
    return load_settings(path, Benchmark)


def _near(asked: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
