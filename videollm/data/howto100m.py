"""HowTo100M: what is said in videos, with its seconds.

Source: HowTo100M's published ``caption.json``: for each video's id, lists ``text``, ``start`` and ``end`` (seconds) of
the same length. The video is ``<videos>/<id>`` with one of the endings of `ENDINGS`.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from videollm.data.annotations import bad, captioned, media_file
from videollm.data.sample import Media, Sample
from videollm.errors import DataError

ENDINGS = ("mp4", "webm", "mkv")
MIN_SECONDS = 4.0


class HowTo100M:
    """Stretches of video with what is said in them, by number, in the order of the file.

    Args:
        path: the JSON file.
        videos: the folder of videos.
        name: of the dataset.
        min_seconds: shorter stretches are extended on both sides, as the published loader of MIL-NCE does.

    Raises:
        DataError: no such file, or no narrations.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        videos: str | os.PathLike[str],
        name: str = "howto100m",
        min_seconds: float = MIN_SECONDS,
    ) -> None:
        self.name, self._path, self._videos, self._min_seconds = name, Path(path), Path(videos), min_seconds
        try:
            told = json.loads(self._path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; give an existing JSON file") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}); download it again") from None
        if not isinstance(told, dict):
            raise DataError(f"{path}: must hold an object of videos; give the published caption.json")
        self._told: dict[str, dict[str, Any]] = told
        self._ids = list(told)
        for video in self._ids:
            if _texts(told[video]) is None:
                raise DataError(
                    f"{path}: video {video[:40]!r} needs lists text, start and end of one length; give the published "
                    "caption.json"
                )
        self._ends = np.cumsum([len(told[video]["text"]) for video in self._ids], dtype=np.int64)
        if not len(self):
            raise DataError(f"{path}: holds no narrations; give the published caption.json")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        video = self._ids[number]
        place = index - int(self._ends[number]) + len(self._told[video]["text"])
        text, start, end = (self._told[video][key][place] for key in ("text", "start", "end"))
        where = f"{self._path} {video[:40]!r} narration {place + 1}"
        if not (isinstance(text, str) and all(isinstance(one, int | float) for one in (start, end))):
            raise bad(where, "text must be text, start and end seconds")
        if not (math.isfinite(start) and math.isfinite(end) and end > max(start, 0.0)):
            raise bad(where, f"must end after it starts, found {start:g} to {end:g} s")
        start, end = max(float(start), 0.0), float(end)
        if (missing := self._min_seconds - (end - start)) > 0:
            start = max(start - missing / 2, 0.0)
            end = start + self._min_seconds
        return captioned(
            f"{video}-{place}", self.name, "video", Media(self._file(video, where), start, end), text, where
        )

    def _file(self, video: str, where: str) -> str:
        there = (ending for ending in ENDINGS if (self._videos / f"{video}.{ending}").is_file())
        return media_file(self._videos, f"{video}.{next(there, ENDINGS[0])}", where).path


def _texts(told: Any) -> list[Any] | None:
    """The texts of a video; None where its lists do not fit together."""
    if not isinstance(told, dict) or not all(isinstance(told.get(key), list) for key in ("text", "start", "end")):
        return None
    return told["text"] if len(told["text"]) == len(told["start"]) == len(told["end"]) else None
