"""One training sample, and the JSONL file in which people keep their own: one line is one sample.

A line is an object like this one, written on one line::

    {"id": "kitchen-7", "source": "my films",
     "messages": [{"role": "user", "parts": [{"type": "video", "clip": "film"}, {"type": "text", "text": "What?"}]},
                  {"role": "assistant", "parts": [{"type": "text", "text": "A kettle."}]}],
     "media": {"film": {"path": "films/7.mp4", "start_seconds": 1.5, "end_seconds": 4}}}

``source``, ``media``, ``start_seconds`` and ``end_seconds`` may be left out. A ``path`` is an http or https address, or
a file under the folder of the JSONL file (or another root that the caller gives), and never one outside of it.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from videollm.errors import DataError, UnusableSampleError
from videollm.media.write import atomic
from videollm.messages import MediaPart, Message, TextPart

SHOWN_AS = ("image", "video", "audio")
MAX_LINE_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Media:
    """A media file that a sample shows.

    Attributes:
        path: a file, or an http or https address.
        start_seconds, end_seconds: the stretch of it that is shown; None is its very start, or its very end.
    """

    path: str
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("a path must not be empty")
        for name in ("start_seconds", "end_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of seconds from 0, found {value}")
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise ValueError(
                f"end_seconds must be after start_seconds, found {self.start_seconds or 0.0:g} to {self.end_seconds:g}"
            )

    @property
    def is_url(self) -> bool:
        return is_url(self.path)


@dataclass(frozen=True)
class Sample:
    """What a model learns from at once: a conversation, and the media that it shows.

    Attributes:
        id: its name, unique within its source.
        messages: text and media parts only; each media part names a key of ``media``.
        media: where the clips are.
        source: the name of the dataset.
    """

    id: str
    messages: tuple[Message, ...]
    media: Mapping[str, Media] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a sample needs messages, found none")
        shown: set[str] = set()
        for message in self.messages:
            for part in message.parts:
                if isinstance(part, MediaPart):
                    if part.clip not in self.media:
                        known = ", ".join(map(repr, self.media)) or "none"
                        raise ValueError(f"a message shows the clip {part.clip!r}, but the media are {known}")
                    shown.add(part.clip)
                elif not isinstance(part, TextPart):
                    raise ValueError(f"a sample holds text and media only, found a {part.type} part")
        if unseen := sorted(set(self.media) - shown):
            raise ValueError(f"no message shows the clip {unseen[0]!r}; show it, or leave it out")


class Source(Protocol):
    """Samples by number, for `torch.utils.data.Dataset`-style loading; an item may raise `UnusableSampleError`."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def path_inside(root: str | os.PathLike[str], path: str) -> str:
    """A path of an annotation as a path on this machine.

    Raises:
        ValueError: it leads out of the root, through ``..``, a link or an absolute path.
    """
    joined = os.path.normpath(os.path.join(root, path))
    try:
        real, real_root = os.path.realpath(joined), os.path.realpath(root)
        inside = os.path.commonpath([real, real_root]) == real_root
    except (OSError, ValueError):
        raise ValueError(f"{path!r} is no path") from None
    if not inside:
        raise ValueError(f"{path!r} leads out of {os.fspath(root)!r}; move it there, or give another root")
    return joined


def sample_from_json(value: Any, folder: str | os.PathLike[str], where: str, source: str = "") -> Sample:
    """A line of a JSONL file as a sample.

    Args:
        value: the line, parsed.
        folder: what relative paths start from and no path may leave.
        where: file and line, for errors.
        source: name of the dataset where the line has none.

    Raises:
        DataError: one line that begins with ``where``.
    """
    try:
        given = _object(value, "a sample", ("id", "messages"), ("media", "source"))
        media: dict[str, Media] = {}
        for name, one in _dict(given.get("media", {}), "media").items():
            entry = _object(one, f"media {name!r}", ("path",), ("start_seconds", "end_seconds"))
            path = _text(entry["path"], f"media {name!r}: path")
            seconds = [_seconds(entry.get(key), f"media {name!r}: {key}") for key in ("start_seconds", "end_seconds")]
            try:
                media[name] = Media(path if is_url(path) or not path else path_inside(folder, path), *seconds)
            except ValueError as error:
                raise ValueError(f"media {name!r}: {error}") from None
        messages = tuple(
            _message(one, f"message {place}") for place, one in enumerate(_list(given["messages"], "messages"), 1)
        )
        if not any(message.role == "assistant" and message.text.strip() for message in messages):
            raise ValueError("there is nothing to learn: no message of the assistant has words")
        name = _text(given["id"], "id")
        if not name:
            raise ValueError("id must not be empty")
        return Sample(name, messages, media, _text(given.get("source", source), "source"))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def sample_to_json(sample: Sample, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """A sample as the object of its line.

    Args:
        folder: write the paths of files relative to this folder.

    Raises:
        ValueError: text with token ids, which the format has no place for; or a file outside the folder.
    """
    messages = []
    for message in sample.messages:
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                if part.token_ids is not None:
                    raise ValueError(
                        f"sample {sample.id!r}: token ids cannot be written to a file; keep the words only"
                    )
                parts.append({"type": "text", "text": part.text})
            else:
                assert isinstance(part, MediaPart)
                parts.append({"type": part.type, "clip": part.clip})
        messages.append({"role": message.role, "parts": parts})
    media = {}
    for name, one in sample.media.items():
        path = one.path
        if folder is not None and not one.is_url:
            path = os.path.relpath(path_inside(folder, os.path.abspath(path)), os.path.abspath(folder))
        seconds = {"start_seconds": one.start_seconds, "end_seconds": one.end_seconds}
        media[name] = {"path": path, **{key: value for key, value in seconds.items() if value is not None}}
    told: dict[str, Any] = {"id": sample.id, "messages": messages, "media": media}
    return {**told, "source": sample.source} if sample.source else told


def write_samples(
    path: str | os.PathLike[str], samples: Iterable[Sample], root: str | os.PathLike[str] | None = None
) -> int:
    """Write a JSONL file, whole or not at all; paths are written relative to the root.

    Args:
        root: folder of all media files; the folder of the JSONL file if None.

    Returns:
        How many samples were written.

    Raises:
        DataError: a sample that the file cannot hold.
    """
    target, count = Path(path), 0
    with atomic(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            try:
                told = sample_to_json(sample, target.parent if root is None else root)
            except ValueError as error:
                raise DataError(f"{target}: {error}") from None
            file.write(json.dumps(told, ensure_ascii=False) + "\n")
            count += 1
    return count


class JsonlLines:
    """The lines of a JSONL file by number; blank ones are left out. Where each begins is looked up once.

    Raises:
        DataError: no such file, or nothing in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        starts, numbers, start = [], [], 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        starts.append(start)
                        numbers.append(number)
                    start += len(line)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}; give an existing JSONL file") from None
        if not starts:
            raise DataError(f"{self.path}: holds no line; give a JSONL file with one sample a line")
        self._starts, self._numbers = np.array(starts), np.array(numbers)

    def __len__(self) -> int:
        return len(self._starts)

    def where(self, index: int) -> str:
        """File and line, for errors."""
        return f"{self.path} line {self._numbers[index]}"

    def __getitem__(self, index: int) -> Any:
        """The line as JSON; `UnusableSampleError` if it is none."""
        with self.path.open("rb") as file:
            file.seek(int(self._starts[index]))
            line = file.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise UnusableSampleError("bad annotation", f"{self.where(index)}: longer than {MAX_LINE_BYTES:,} bytes")
        try:
            return json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise UnusableSampleError("bad annotation", f"{self.where(index)}: not UTF-8 text; convert it") from None
        except json.JSONDecodeError as error:
            raise UnusableSampleError(
                "bad annotation", f"{self.where(index)}: not JSON ({error.msg} at column {error.colno}); correct it"
            ) from None
        except RecursionError:
            raise UnusableSampleError("bad annotation", f"{self.where(index)}: nested too deeply") from None


class JsonlSamples:
    """The samples of a JSONL file in our own format, by number.

    Args:
        path: the file.
        root: what relative media paths start from and no path may leave; the folder of the file if None.
        name: of the dataset, for samples that do not say; the file's name without its ending if None.

    Raises:
        DataError: no such file, or nothing in it. An item raises `UnusableSampleError` with file and line.
    """

    def __init__(
        self, path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, name: str | None = None
    ) -> None:
        self._lines = JsonlLines(path)
        self._root = self._lines.path.parent if root is None else Path(root)
        self.name = self._lines.path.stem if name is None else name

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        value = self._lines[index]
        try:
            return sample_from_json(value, self._root, self._lines.where(index), self.name)
        except DataError as error:
            raise UnusableSampleError("bad annotation", str(error)) from None


# --- checks of parsed JSON --------------------------------------------------------------------------------------------


def _message(value: Any, what: str) -> Message:
    given = _object(value, what, ("role", "parts"))
    if given["role"] not in ("system", "user", "assistant"):
        raise ValueError(f"{what}: role must be system, user or assistant, found {_short(given['role'])}")
    parts: list[TextPart | MediaPart] = []
    for place, one in enumerate(_list(given["parts"], f"{what}: parts"), 1):
        inside = f"{what}, part {place}"
        kind = _dict(one, inside).get("type")
        if kind == "text":
            parts.append(TextPart(_text(_object(one, inside, ("type", "text"))["text"], f"{inside}: text")))
        elif kind in SHOWN_AS:
            parts.append(MediaPart(_text(_object(one, inside, ("type", "clip"))["clip"], f"{inside}: clip"), kind))
        else:
            raise ValueError(f"{inside}: type must be text, {', '.join(SHOWN_AS)}, found {_short(kind)}")
    return Message(given["role"], tuple(parts))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object, found {_short(value)}")
    return value


def _object(value: Any, what: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    keys = (*required, *optional)
    for key in _dict(value, what):
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(keys)}"
            raise ValueError(f"{what}: unknown key {_short(key)}; {hint}")
    for key in required:
        if key not in value:
            raise ValueError(f"{what}: {key!r} is missing; add it")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{what} must be a list that is not empty, found {_short(value)}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, found {_short(value)}")
    return value


def _seconds(value: Any, what: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{what} must be a number of seconds, found {_short(value)}")
    return None if value is None else float(value)
