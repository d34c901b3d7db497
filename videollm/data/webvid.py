"""WebVid: tables of captions, and videos in folders.

Source: WebVid's published tables as Video-LLaMA reads them: columns ``videoid``, ``name`` (the caption) and
``page_dir``; the video is ``<videos>/<page_dir>/<videoid>.mp4``.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from videollm.data.annotations import captioned, media_file
from videollm.data.captions import clean_caption
from videollm.data.sample import Sample
from videollm.errors import DataError, UnusableSampleError

COLUMNS = ("videoid", "name", "page_dir")


class WebVid:
    """Captioned videos by number, in the order of the sorted tables.

    Published defects that are not reproduced: an empty caption crashed the loader, and is skipped by name here; a tsv
    was documented, but only csv files were read; a broken video was replaced at random without a word.

    Args:
        tables: a csv or tsv file, or a folder of them.
        videos: the folder of videos.
        name: of the dataset.
        as_published: clean captions with the published slips.

    Raises:
        DataError: no table, or one without the columns.
    """

    def __init__(
        self,
        tables: str | os.PathLike[str],
        videos: str | os.PathLike[str],
        name: str = "webvid",
        as_published: bool = False,
    ) -> None:
        self.name, self._videos, self._as_published = name, Path(videos), as_published
        path = Path(tables)
        files = [path] if path.is_file() else sorted(one for one in path.glob("*") if one.suffix in (".csv", ".tsv"))
        self._rows: list[tuple[str, str, str, str]] = []
        for file in files:
            self._read(file)
        if not self._rows:
            raise DataError(f"{path}: holds no csv or tsv table with rows; give the published tables")

    def _read(self, file: Path) -> None:
        try:
            with file.open(encoding="utf-8-sig", newline="") as text:
                table = csv.DictReader(text, delimiter="\t" if file.suffix == ".tsv" else ",")
                for column in COLUMNS:
                    if column not in (table.fieldnames or ()):
                        raise DataError(f"{file} line 1: there is no column {column!r}; add it")
                for row in table:
                    video, caption, page = (row[column] or "" for column in COLUMNS)
                    self._rows.append((video, caption, page, f"{file} line {table.line_num}"))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot read {file}: {error}; give a csv or tsv table in UTF-8") from None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        video, caption, page, where = self._rows[index]
        if not video:
            raise UnusableSampleError("bad annotation", f"{where}: there is no videoid; add it")
        media = media_file(self._videos, os.path.join(page, f"{video}.mp4"), where)
        return captioned(
            video, self.name, "video", media, clean_caption(caption, as_published=self._as_published), where
        )
