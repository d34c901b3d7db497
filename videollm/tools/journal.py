"""What a long piece of work has computed so far, on disk, so that it goes on where it was killed."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from videollm.errors import ConfigError


class Journal:
    """A file of JSON lines: what the work is, then what it found, in order. For use as a context manager.

    A line that was not written to its end is dropped. One process at a time may have it open.

    Args:
        path: of the file; made if it is missing.
        work: plain data that tells this work from any other: what was found for another is thrown away.

    Attributes:
        entries: what earlier runs found for the same work.
        forgot: whether there was something of other work.
        is_empty: whether it holds nothing that was found.

    Raises:
        ConfigError: the file cannot be written, or another process has it.
    """

    def __init__(self, path: Path, work: dict[str, Any]) -> None:
        self.path = path
        try:
            self._file = open(path, "a+b")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise ConfigError(f"cannot write {path} ({error.strerror}); choose another place for the output") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(f"another process is writing {path}; wait for it, or choose another output") from None
        first = json.dumps({"work": work}, sort_keys=True).encode() + b"\n"
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        self.forgot = bool(lines) and lines[0] != first
        kept = 0
        self.entries: list[dict[str, Any]] = []
        if lines and not self.forgot:
            kept = len(first)
            for line in lines[1:]:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n") or not isinstance(entry, dict):
                    break
                self.entries.append(entry)
                kept += len(line)
        self._file.truncate(kept)
        self.is_empty = not self.entries
        if not kept:
            self._write(first)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def add(self, entry: dict[str, Any]) -> None:
        """Keep what was found."""
        self.is_empty = False
        self._write(json.dumps(entry).encode() + b"\n")

    def remove(self) -> None:
        """The work is done, and its result is somewhere else."""
        self.path.unlink(missing_ok=True)

    def _write(self, line: bytes) -> None:
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise ConfigError(f"cannot write {self.path} ({error.strerror}); make room, then run it again") from None
