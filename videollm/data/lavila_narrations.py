"""Ego4D's narrations, written by people or by LaViLa's narrator and rephraser.

Source: LaViLa's published files: a pickled list of (video, start second, end second, narration), in which the narration
may be a list; the narrator's have a fifth column of scores, which is ignored, as published. Videos are
``<video>.mp4``, or folders of that name with five-minute pieces ``<first second>.mp4``.
"""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any, NoReturn

from videollm.data.annotations import bad, captioned, media_file
from videollm.data.sample import JsonlLines, Media, Sample
from videollm.errors import DataError
from videollm.media.write import atomic

PIECE_SECONDS = 300


class _PlainUnpickler(pickle.Unpickler):
    """Lists, tuples, text and numbers only: whatever else a pickle can make, it makes by running code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which would run code")


def convert_narrations(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> int:
    """Read a published pickle, once, into a JSONL file with one narration a line; no code of the pickle is run.

    Returns:
        How many narrations were written.

    Raises:
        DataError: a pickle with code in it, or one that holds no narrations.
    """
    try:
        with Path(path).open("rb") as file:
            rows = _PlainUnpickler(file).load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing pickle") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError,
            MemoryError, OverflowError, RecursionError) as error:  # fmt: skip
        raise DataError(f"{path}: not a pickle of plain narrations ({error}); get the published file again") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: must hold a list that is not empty; give a published file")
    count = 0
    with atomic(into) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        for number, row in enumerate(rows, 1):
            for line in _lines(row, f"{path} row {number}"):
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    return count


def _lines(row: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(row, tuple | list) or len(row) not in (4, 5):
        raise DataError(f"{where}: must be (video, start, end, narration) and perhaps scores; give a published file")
    video, start, end, told = row[:4]
    texts = told if isinstance(told, list | tuple) else [told]
    if not isinstance(video, str) or not _is_seconds(start) or not _is_seconds(end):
        raise DataError(f"{where}: needs the name of a video and two numbers of seconds; give a published file")
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: a narration must be text; give a published file")
    return [{"video": video, "start_seconds": start, "end_seconds": end, "narration": text} for text in texts]


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class LavilaNarrations:
    """Narrated stretches of video by number, of a file that `convert_narrations` made.

    Every narration of a list is a sample of its own; as published, a clip was met once an epoch, with one of its list
    drawn at random. A stretch that runs into the next five-minute piece ends with its own; as published, it was put
    together of both.

    Args:
        path: the JSONL file.
        videos: the folder of videos.
        name: of the dataset.

    Raises:
        DataError: no such file, or nothing in it.
    """

    def __init__(
        self, path: str | os.PathLike[str], videos: str | os.PathLike[str], name: str = "lavila_narrations"
    ) -> None:
        self.name, self._videos, self._lines = name, Path(videos), JsonlLines(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        one, where = self._lines[index], self._lines.where(index)
        keys = ("video", "narration", "start_seconds", "end_seconds")
        if not isinstance(one, dict) or not all(key in one for key in keys):
            raise bad(where, f"needs {', '.join(keys)}")
        video, text, start, end = (one[key] for key in keys)
        if not (isinstance(video, str) and isinstance(text, str) and _is_seconds(start) and _is_seconds(end)):
            raise bad(where, "video and narration must be text, seconds numbers")
        start = max(float(start), 0.0)
        if end <= start:
            raise bad(where, f"must end after {start:g} s, found {end:g} s")
        file, first = f"{video}.mp4", 0
        if (self._videos / file).is_dir():
            first = int(start // PIECE_SECONDS) * PIECE_SECONDS
            file, end = f"{file}/{first}.mp4", min(end, first + PIECE_SECONDS)
        media = media_file(self._videos, file, where)
        clip = Media(media.path, start - first, float(end) - first)
        return captioned(f"{video}-{index}", self.name, "video", clip, text, where)
