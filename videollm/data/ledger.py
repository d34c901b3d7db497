"""The ledger of samples that were not used: each with its reason, counted, and a limit past which training stops."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import torch
from torch.utils.data import get_worker_info

from videollm.errors import DataError, UnusableReason, UnusableSampleError

LEAST_SEEN = 100
"""The share of skipped samples is judged once so many were tried: one bad file among the first three is no verdict."""
ROOM_DEVIATIONS = 2.0
"""Among few, more than their share may be bad by chance: it is judged with so many standard deviations of room.
Without, one run in fifty on data of which 5 % are broken would stop at a limit of 10 %."""
REASONS: tuple[str, ...] = get_args(UnusableReason)
_MOST_WORKERS = 1023


class Ledger:
    """What was skipped, and why, in a JSONL file that many processes may append to at once.

    An entry is one short line written by one call to a file opened for appending, so that entries of several workers
    do not mix; what a killed process left of a line is closed by the next one to open the file.

    Counts are those of a loader and all of its workers together, wherever they are read: they lie in memory that the
    workers share, a row for each, so that nobody waits. Each rank counts what it tried itself, from its start on: a run
    that goes on after a repair is not judged by what was broken before.

    Args:
        path: the file; None keeps counts only.
        max_skipped_share: more than this share of the samples tried, beyond chance, and `skip` raises.
        least_seen: how many samples must have been tried before the share is judged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        max_skipped_share: float = 0.1,
        least_seen: int = LEAST_SEEN,
    ) -> None:
        if not 0 <= max_skipped_share <= 1:
            raise ValueError(f"max_skipped_share must be within 0 and 1, found {max_skipped_share}")
        self.path = None if path is None else Path(path)
        self.max_skipped_share, self.least_seen = max_skipped_share, least_seen
        self._counts = torch.zeros(1 + _MOST_WORKERS, 1 + len(REASONS), dtype=torch.int64).share_memory_()
        self._opened_by: int | None = None

    @property
    def used(self) -> int:
        """How many samples were used."""
        return int(self._counts[:, 0].sum())

    @property
    def reasons(self) -> Counter[str]:
        """How often samples were skipped, by reason."""
        counts = self._counts[:, 1:].sum(0).tolist()
        return Counter({reason: count for reason, count in zip(REASONS, counts, strict=True) if count})

    @property
    def skipped(self) -> int:
        """How often samples were skipped."""
        return int(self._counts[:, 1:].sum())

    def _count(self, column: int) -> None:
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % _MOST_WORKERS, column] += 1

    def use(self) -> None:
        """Count a sample that was used."""
        self._count(0)

    def skip(self, source: str, index: int, sample_id: str | None, error: UnusableSampleError) -> None:
        """Enter a sample that was not used.

        Args:
            source: name of the dataset.
            index: its number there.
            sample_id: its name, where it is known.

        Raises:
            DataError: too large a share was skipped; the message counts the reasons.
        """
        self._count(1 + REASONS.index(error.reason))
        if self.path is not None:
            message = " ".join(str(error).split())[:1000]
            entry = {"source": source, "index": index, "id": sample_id, "reason": error.reason, "message": message}
            self._append(json.dumps(entry, ensure_ascii=False) + "\n")
        self._judge()

    def _judge(self) -> None:
        skipped = self.skipped
        tried = self.used + skipped
        share = self.max_skipped_share
        room = ROOM_DEVIATIONS * math.sqrt(share * (1 - share) * tried)
        if tried < self.least_seen or skipped <= share * tried + room:
            return
        where = f"; each stands in {self.path}" if self.path is not None else ""
        raise DataError(
            f"{skipped:,} of {tried:,} samples could not be used, more than max_skipped_share "
            f"{self.max_skipped_share:g} ({self}){where}; repair the data, or allow a larger share"
        )

    def _append(self, line: str) -> None:
        assert self.path is not None
        if self._opened_by != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if self._opened_by != os.getpid():
                self._opened_by = os.getpid()
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    os.write(descriptor, b"\n")
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def __str__(self) -> str:
        """The reasons, the most frequent first: ``12 broken media, 3 empty caption``."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common()) or "none skipped"


def read_ledger(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The entries of a ledger, each skipped sample once, however often it was met; lines cut by a kill are left out.

    Raises:
        DataError: no such file.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give an existing ledger") from None
    entries: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            entries.setdefault((entry["source"], entry["index"]), entry)
        except (ValueError, TypeError, KeyError):
            continue
    return list(entries.values())
