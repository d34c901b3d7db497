"""The ledger of samples that were not used: each with its reason, counted, and a limit past which training stops."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from videollm.errors import DataError, UnusableSampleError

LEAST_SEEN = 100
"""The share of skipped samples is judged once so many were tried: one bad file among the first three is no verdict."""


class Ledger:
    """What was skipped, and why, in a JSONL file that many processes may append to at once.

    An entry is one short line written by one call to a file opened for appending, so that entries of several workers
    do not mix; what a killed process left of a line is closed by the next one to open the file. Shares are those of
    this process: every loader worker judges what it has tried itself.

    Args:
        path: the file; None keeps counts only.
        max_skipped_share: more than this share of the samples tried, and `skip` raises.
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
        self.used = 0
        self.reasons: Counter[str] = Counter()
        self._opened_by: int | None = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def skipped(self) -> int:
        return self.reasons.total()

    def use(self) -> None:
        """Count a sample that was used."""
        self.used += 1

    def skip(self, source: str, index: int, sample_id: str | None, error: UnusableSampleError) -> None:
        """Enter a sample that was not used.

        Args:
            source: name of the dataset.
            index: its number there.
            sample_id: its name, where it is known.

        Raises:
            DataError: too large a share was skipped; the message counts the reasons.
        """
        self.reasons[error.reason] += 1
        if self.path is not None:
            message = " ".join(str(error).split())[:1000]
            entry = {"source": source, "index": index, "id": sample_id, "reason": error.reason, "message": message}
            self._append(json.dumps(entry, ensure_ascii=False) + "\n")
        self._judge()

    def _judge(self) -> None:
        tried = self.used + self.skipped
        if tried < self.least_seen or self.skipped <= self.max_skipped_share * tried:
            return
        where = f"; each stands in {self.path}" if self.path is not None else ""
        raise DataError(
            f"{self.skipped:,} of {tried:,} samples could not be used, more than max_skipped_share "
            f"{self.max_skipped_share:g} ({self}){where}; repair the data, or allow a larger share"
        )

    def _append(self, line: str) -> None:
        assert self.path is not None
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
