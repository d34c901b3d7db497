"""Ego4D's narrations, written by people or by LaViLa's narrator and rephraser.

Source: LaViLa's published files: a pickled list of (video, start second, end second, narration), in which the narration
may be a list; the narrator's have a fifth column of scores, which is ignored, as published. Videos are
``<video>.mp4``, or folders of that name with five-minute pieces ``<first second>.mp4``.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from videollm.data.annotations import bad, captioned, media_file
from videollm.data.pickles import load_plain
from videollm.data.sample import Media, Sample
from videollm.errors import DataError
from videollm.messages import assistant

PIECE_SECONDS = 300


def read_narrations(path: str | os.PathLike[str]) -> list[tuple[str, float, float, str]]:
    """(video, start, end, narration) of a published pickle, a row for each narration of a list; no code of it is run.

    Raises:
        DataError: a pickle with code in it, or one that holds no narrations.
    """
    return [(*stretch, text) for *stretch, texts in _read(path) for text in texts]  # pyright: ignore


def _read(path: str | os.PathLike[str]) -> list[tuple[str, float, float, list[str]]]:
    rows = load_plain(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: must hold a list that is not empty; give a published file")
    return [_narrations(row, f"{path} row {number}") for number, row in enumerate(rows, 1)]


def _narrations(row: Any, where: str) -> tuple[str, float, float, list[str]]:
    if not isinstance(row, tuple | list) or len(row) not in (4, 5):
        raise DataError(f"{where}: must be (video, start, end, narration) and perhaps scores; give a published file")
    video, start, end, told = row[:4]
    texts = told if isinstance(told, list | tuple) else [told]
    if not isinstance(video, str) or not _is_seconds(start) or not _is_seconds(end):
        raise DataError(f"{where}: needs the name of a video and two numbers of seconds; give a published file")
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: a narration must be text; give a published file")
    return video, float(start), float(end), list(texts)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class LavilaNarrations:
    """Narrated stretches of video by number; for `videollm data convert`, not for every run.

    Every narration of a list is a sample of its own; or all of a list together are one, each a message of the
    assistant, of which LaViLa's runs draw one at each visit, as published. A stretch that runs into the next
    five-minute piece ends with its own; as published, it was put together of both.

    Args:
        path: a published pickle.
        videos: the folder of videos.
        name: of the dataset.
        together: all narrations of a stretch are one sample.

    Raises:
        DataError: see `read_narrations`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        videos: str | os.PathLike[str],
        name: str = "lavila_narrations",
        together: bool = False,
    ) -> None:
        self.name, self._path, self._videos = name, path, Path(videos)
        rows = _read(path)
        each = [(*stretch, [text]) for *stretch, texts in rows for text in texts]  # pyright: ignore
        self._rows: list[Any] = rows if together else each

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        video, start, end, texts = self._rows[index]
        where = f"{self._path} narration {index + 1}"
        start = max(start, 0.0)
        if end <= start:
            raise bad(where, f"must end after {start:g} s, found {end:g} s")
        file, first = f"{video}.mp4", 0
        if (self._videos / file).is_dir():
            first = int(start // PIECE_SECONDS) * PIECE_SECONDS
            file, end = f"{file}/{first}.mp4", min(end, first + PIECE_SECONDS)
        media = media_file(self._videos, file, where)
        clip = Media(media.path, start - first, end - first)
        said = [text for text in texts if text.strip()] or [""]
        sample = captioned(f"{video}-{index}", self.name, "video", clip, said[0], where)
        return replace(sample, messages=(*sample.messages, *map(assistant, said[1:])))
