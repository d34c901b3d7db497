"""An index made by several processes of this machine: each loads the models once and looks at videos, one at a time.

This process hands out the files and is the only one that writes, so an index is as safe as with one process alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from videollm.errors import ConfigError, MomentIndexError, VideoLLMError
from videollm.media.source import Limits
from videollm.moments.moment import Video
from videollm.tools.child_process import ChildProcess
from videollm.tools.index import (
    CrewNames,
    CrewTold,
    Indexed,
    IndexSettings,
    Looked,
    gather,
    look_at,
    stored_in,
)
from videollm.tools.narrate import LONG_FILE, Progress, Report

if TYPE_CHECKING:
    from videollm.models.memory import MemoryPlan

PROGRESS_SECONDS = 0.2
"""A process tells how far it is at most so often."""


@dataclass(frozen=True)
class _Order:
    """What a process is told when it starts."""

    number: int
    names: CrewNames
    settings: IndexSettings
    known: Mapping[str, Video]
    limits: Limits


@dataclass(frozen=True)
class _Plan:
    """What a large model will take."""

    plan: MemoryPlan


@dataclass(frozen=True)
class _At:
    """How far a process is with its video."""

    done: int
    total: int


def index_in_processes(
    videos: Sequence[Path],
    into: str | Path,
    names: CrewNames,
    settings: IndexSettings | None = None,
    *,
    workers: int,
    prune: bool = False,
    limits: Limits = LONG_FILE,
    progress: Callable[[Path], Progress] | None = None,
    report: Report | None = None,
    announce: Callable[[MemoryPlan], None] | None = None,
) -> Indexed:
    """`videollm.tools.index.index` by several processes; what is stored is the same.

    Args:
        names: who looks at the windows; each process loads them. Where there are several GPUs and none is named, each
            process takes the next.
        workers: how many processes, at least 1; never more than videos.
        announce: gets the plan of a large model, once.

    Raises:
        ConfigError: less than one process.
        MomentIndexError: the index cannot be used, or a process ended while it was loading the models.
        VideoLLMError: as `CrewNames.load`.
    """
    if workers < 1:
        raise ConfigError(f"an index is made by at least 1 process, found {workers}")
    settings = settings or IndexSettings()
    known = stored_in(into)
    count = max(1, min(workers, len(videos)))
    orders = [_Order(number, names, settings, known, limits) for number in range(count)]
    with _Pool(orders, videos, progress, announce) as pool:
        results = pool.results()
        told = next(results)
        assert isinstance(told, CrewTold)
        looked = (one for one in results if isinstance(one, Looked))
        return gather(told.open(into), looked, prune=prune, report=report)


class _Process(ChildProcess):
    """A process, and the video that it is at."""

    def __init__(self, order: _Order, threads: int) -> None:
        single = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        super().__init__(__name__, order, single)
        self.order = order
        self.video: Path | None = None


class _Pool:
    """Processes, and the videos that none of them has had yet."""

    def __init__(
        self,
        orders: Sequence[_Order],
        videos: Sequence[Path],
        progress: Callable[[Path], Progress] | None,
        announce: Callable[[MemoryPlan], None] | None,
    ) -> None:
        self._left, self._orders = list(reversed(videos)), orders
        self._progress, self._announce = progress, announce
        self._tell: dict[Path, Progress] = {}
        self._processes: dict[object, _Process] = {}

    def __enter__(self) -> _Pool:
        for order in self._orders:
            self._start(order)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.end()

    def results(self) -> Iterator[CrewTold | Looked]:
        """What each process says of its crew when it is ready, and every video, in the order in which they are done.

        Raises:
            VideoLLMError: a process cannot load the models.
        """
        while self._processes:
            for connection in wait([process.connection for process in self._processes.values()]):
                process = self._processes[connection]
                try:
                    message = process.connection.recv()
                except (EOFError, ConnectionError):
                    yield self._died(process)
                    continue
                if isinstance(message, VideoLLMError):
                    raise message
                if isinstance(message, _At):
                    self._show(process, message)
                elif isinstance(message, _Plan):
                    if self._announce is not None:
                        self._announce(message.plan)
                else:
                    self._next(process)
                    yield message

    def _start(self, order: _Order) -> None:
        process = _Process(order, max(1, (os.cpu_count() or 1) // len(self._orders)))
        self._processes[process.connection] = process

    def _next(self, process: _Process) -> None:
        """Gives a process another video, or lets it go."""
        if not self._left:
            del self._processes[process.connection]
            process.kill()
            process.end()
            return
        process.video = self._left.pop()
        with contextlib.suppress(ConnectionError):  # it died: that is received next
            process.connection.send(process.video)

    def _died(self, process: _Process) -> Looked:
        """Of a process that ended by itself: its video is not read, and another process takes its place.

        Raises:
            MomentIndexError: it had not even begun with a video.
        """
        del self._processes[process.connection]
        how = f"{process.end()}; where memory is short, fewer workers need less"
        if process.video is None:
            raise MomentIndexError(f"a process that was loading the models {how}")
        if self._left:
            self._start(process.order)
        return Looked(str(process.video.resolve()), reason=f"{process.video.name}: the process that looked at it {how}")

    def _show(self, process: _Process, at: _At) -> None:
        if self._progress is None or process.video is None:
            return
        if process.video not in self._tell:
            self._tell[process.video] = self._progress(process.video)
        self._tell[process.video](at.done, at.total)


# In a process that looks


def main(connection: Connection) -> None:
    """Loads the models, then looks at videos until the connection is closed."""
    with contextlib.suppress(EOFError, ConnectionError):
        order: _Order = connection.recv()
        names = _placed(order.names, order.number)
        try:
            crew = names.load(None if order.number else lambda plan: connection.send(_Plan(plan)))
        except VideoLLMError as error:
            connection.send(error)
            return
        connection.send(crew.told(order.settings))
        while True:
            file = connection.recv()
            progress = _progress_to(connection)
            connection.send(look_at(file, order.known, crew, order.settings, order.limits, progress))


def _placed(names: CrewNames, number: int) -> CrewNames:
    import torch

    count = torch.cuda.device_count()
    if count > 1 and names.device in (None, "cuda"):
        return replace(names, device=f"cuda:{number % count}")
    return names


def _progress_to(connection: Connection) -> Progress:
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            connection.send(_At(done, total))

    return progress
