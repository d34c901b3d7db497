"""One benchmark: what an evaluation file may say, and how it is read."""

from __future__ import annotations

import difflib
import typing
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from videollm.data.world import SCENE_KINDS
from videollm.errors import ConfigError

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
        ConfigError: no such file, not YAML, an unknown key, a wrong type or a missing key; the line names file, line
            and the nearest valid key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        nearby = sorted(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, [file.name for file in nearby], n=1)
        hint = f"did you mean {path.parent / near[0]}?" if near else "give the path of a YAML file"
        raise ConfigError(f"no benchmark {path}: there is no such file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the benchmark {path} cannot be read ({error}); give the path of a YAML file") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)}); mend the file") from None
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise ConfigError(f"{path}:1: a benchmark is a list of `key: value` lines; found {type(values).__name__}")

    known = {field.name: field for field in fields(Benchmark)}
    hints = typing.get_type_hints(Benchmark)
    lines: dict[str, int] = {}
    checked: dict[str, Any] = {}
    for key_node, _ in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key not in known:
            raise ConfigError(f"{path}:{line}: no key {key!r}{_near(key, tuple(known))}; there are {', '.join(known)}")
        if key in lines:
            raise ConfigError(f"{path}:{line}: the key {key!r} stands on line {lines[key]} already; keep one")
        lines[key] = line
        checked[key] = _typed(values[key], hints[key], f"{path}:{line}: {key}")
    for name, field in known.items():
        if field.default is MISSING and name not in checked:
            raise ConfigError(f"{path}: the key {name!r} is missing; add `{name}: ...`")
    try:
        return Benchmark(**checked)
    except ValueError as error:
        key = str(error).split(" ")[0]
        raise ConfigError(f"{path}{f':{lines[key]}' if key in lines else ''}: {error}") from None


def _near(asked: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value as the field's type; lists become tuples."""
    if isinstance(hint, UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        hint = next(option for option in options if option is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, found {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_typed(one, item, where) for one in value)
    if type(value) is not hint:  # bool is no int here
        names = {int: "a whole number", str: "text", float: "a number", bool: "true or false"}
        raise ConfigError(f"{where} must be {names[hint]}, found {value!r}")
    return value
