"""One YAML file checked against one frozen dataclass: `load_settings`.

An unknown key, a wrong type, a missing key or a missing file is one line: file, line, and the nearest valid key.
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
        kind: a frozen dataclass; fields without a default are required.
        overrides: ``key=value`` strings, the value in YAML.

    Raises:
        ConfigError: naming the file, the line and what to do.
    """
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
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)}); correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping of keys to values; see {kind.__name__} for its keys")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r} is not key=value; write for example --set seed=1")
        values[key] = yaml.safe_load(value)
        lines[key] = 0

    def where(key: str) -> str:
        return f"--set {key}" if lines.get(key) == 0 else f"{path} line {lines.get(key, 1)}"

    types_of = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(fields)}"
            raise ConfigError(f"{where(key)}: unknown key {key!r}; {hint}")
        values[key] = _as_type(value, types_of[key], f"{where(key)}: {key}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path}: missing key {missing[0]!r}; add it")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


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
