"""One YAML file checked against one frozen dataclass: `load_settings`.

An unknown key, a wrong type, a missing key or a missing file is one line: file, line, and the nearest valid key; in a
section of keys, and in a list of sections, too.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from videollm.errors import ConfigError

T = TypeVar("T")


def load_settings(path: str | Path, kind: type[T], overrides: typing.Sequence[str] = ()) -> T:
    """Read a YAML mapping into a dataclass.

    Args:
        path: the file.
        kind: a frozen dataclass; fields without a default are required. A field that is a dataclass itself, or a tuple
            of them, is a section, or a list of sections.
        overrides: ``key=value`` strings, the value in YAML; ``section.key=value`` reaches into a section.

    Raises:
        ConfigError: naming the file, the line and what to do.
    """
    values, places = _read(path, f"see {kind.__name__} for its keys", overrides)
    return _as_section(values, kind, (), str(path), places)


def load_one_of(
    path: str | Path, key: str, kinds: typing.Mapping[str, type[T]], overrides: typing.Sequence[str] = ()
) -> T:
    """`load_settings` of a file whose own ``key`` says which of several dataclasses it is; the first where it does not.

    Raises:
        ConfigError: naming the file, the line and what to do.
    """
    values, places = _read(path, f"see {next(iter(kinds.values())).__name__} for its keys", overrides)
    said = values.get(key, next(iter(kinds)))
    if not isinstance(said, str) or said not in kinds:
        raise ConfigError(f"{places.get((key,), path)}: {key} is {said!r}; choose one of {', '.join(kinds)}")
    return _as_section(values, kinds[said], (), str(path), places)


def _read(
    path: str | Path, hint: str, overrides: typing.Sequence[str]
) -> tuple[dict[str, Any], dict[tuple[Any, ...], str]]:
    """(what a file and the command line say, where each of it stands)."""
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give an existing YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; give a YAML file") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)}); correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping of keys to values; {hint}")
    places: dict[tuple[Any, ...], str] = {}
    _note_lines(node, (), str(path), places)
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r} is not key=value; write for example --set seed=1")
        *sections, key = name.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {name}: {section} is no section of keys; give it as a whole")
        try:
            target[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"--set {name}: {value!r} is not a YAML value; write for example --set seed=1") from None
        places[*sections, key] = f"--set {name}"
    return values, places


def _note_lines(node: Any, keys: tuple[Any, ...], path: str, places: dict[tuple[Any, ...], str]) -> None:
    """Where each key and each element of a list stands, by the keys that lead to it."""
    if node.id == "mapping":
        inner = [(key.value, key, value) for key, value in node.value]
    else:
        inner = [(place, value, value) for place, value in enumerate(node.value)] if node.id == "sequence" else []
    for key, named, value in inner:
        places[*keys, key] = f"{path} line {named.start_mark.line + 1}"
        _note_lines(value, (*keys, key), path, places)


def _as_section(value: Any, kind: type[T], keys: tuple[Any, ...], path: str, places: dict[tuple[Any, ...], str]) -> T:
    """A mapping as a dataclass."""

    def where(*inner: Any) -> str:
        """The place of a key, or of the nearest section around it."""
        lead = (*keys, *inner)
        return next((places[lead[:end]] for end in range(len(lead), 0, -1) if lead[:end] in places), path)

    types_of = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, one in value.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(fields)}"
            raise ConfigError(f"{where(key)}: unknown key {key!r}; {hint}")
        section, many = _section_of(types_of[key])
        if section is None or one is None:
            given[key] = _as_type(one, types_of[key], f"{where(key)}: {key}")
        elif not many and isinstance(one, dict):
            given[key] = _as_section(one, section, (*keys, key), path, places)
        elif many and isinstance(one, list) and all(isinstance(part, dict) for part in one):
            given[key] = tuple(
                _as_section(part, section, (*keys, key, place), path, places) for place, part in enumerate(one)
            )
        else:
            shape = "a list of sections, each" if many else "a section"
            names = ", ".join(field.name for field in dataclasses.fields(section))
            raise ConfigError(f"{where(key)}: {key} is {one!r}; it must be {shape} with the keys {names}")
    missing = [
        name
        for name, field in fields.items()
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where()}: missing key {missing[0]!r}; add it")
    try:
        return kind(**given)
    except ValueError as error:
        raise ConfigError(f"{where()}: {error}") from None


def _section_of(wanted: Any) -> tuple[Any, bool]:
    """(the dataclass that a field holds or None, whether it holds many of them)."""
    many = typing.get_origin(wanted) is tuple
    for option in typing.get_args(wanted) or (wanted,):
        if dataclasses.is_dataclass(option):
            return option, many
    return None, many


def _as_type(value: Any, wanted: Any, where: str) -> Any:
    """The value as the type, where no information is lost (a list becomes a tuple, a whole number a float)."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return _as_type(value, option, where)
            except ConfigError:
                continue
    elif origin is typing.Literal:
        if value in options:
            return value
        raise ConfigError(f"{where} is {value!r}; choose one of {', '.join(map(str, options))}")
    elif origin is tuple and isinstance(value, list):
        return tuple(_as_type(item, options[0], where) for item in value)
    elif origin is dict and isinstance(value, dict):
        return value
    elif wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif wanted is type(None):
        if value is None:
            return None
    elif isinstance(wanted, type) and isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
        return value
    names = getattr(wanted, "__name__", None) or str(wanted)
    raise ConfigError(f"{where} is {value!r}; it must be {names.replace('typing.', '')}")
