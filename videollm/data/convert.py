"""A published dataset as a JSONL file of our own schema: `convert`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videollm.data.datasets import Dataset, open_dataset
from videollm.data.sample import Sample, write_samples
from videollm.errors import DataError, UnusableReason, UnusableSampleError


@dataclass(frozen=True)
class ConvertReport:
    """What `convert` wrote.

    Attributes:
        samples: how many.
        left_out: (reason, one line) of every annotation that is no usable sample.
    """

    samples: int
    left_out: tuple[tuple[UnusableReason, str], ...]

    def reasons(self) -> str:
        """``12 missing media, 3 empty caption``, the most frequent first."""
        counts = Counter(reason for reason, _ in self.left_out).most_common()
        return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def convert(dataset: Dataset, out: str | Path, progress: bool | None = None) -> ConvertReport:
    """Write the samples of a published dataset as JSONL, whole or not at all. Media are looked up, not opened.

    Args:
        dataset: in any format but our own two.
        out: the file, in a folder above the media: its paths are relative to it.
        progress: show a bar; None: where stderr is a terminal.

    Raises:
        DataError: the dataset cannot be read, holds nothing usable, or its media lie elsewhere; or the file exists.
    """
    from tqdm import tqdm

    out = Path(out)
    if out.exists():
        raise DataError(f"{out} exists; delete it, or name another file")
    media = Path(dataset.media or dataset.path)
    if not media.is_dir():
        raise DataError(f"{media}: there is no such folder of media; give the one that the annotations are about")
    folder, inside = os.path.realpath(out.parent), os.path.realpath(media)
    if os.path.commonpath([folder, inside]) != folder:
        raise DataError(f"{out}: its paths cannot lead out of its own folder; write it into {media}, or above that")
    source = open_dataset(dataset)
    left_out: list[tuple[UnusableReason, str]] = []

    def usable() -> Iterator[Sample]:
        for index in tqdm(range(len(source)), desc=source.name, disable=None if progress is None else not progress):
            try:
                yield source[index]
            except UnusableSampleError as error:
                left_out.append((error.reason, str(error)))
        if len(left_out) == len(source):
            raise DataError(f"none of {len(source):,} annotations can be used; the first: {left_out[0][1]}")

    try:
        count = write_samples(out, usable())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot write {out}: {reason}; name another file") from None
    return ConvertReport(count, tuple(left_out))
