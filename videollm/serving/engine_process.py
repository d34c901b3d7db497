"""Where an engine runs: in a process that can be killed, or in a thread of this one."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Protocol

from videollm.serving.engine import Engine, Load, WorkerLimits, load_choice
from videollm.tools.child_process import LEAVE_SECONDS, ChildProcess

THREADS = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) - 1, 1)), "OMP_WAIT_POLICY": "PASSIVE"}
"""Of an engine that computes on the processor, where the environment does not say. A core is left to what reads files
and speaks with clients. Threads that wait for one another sleep: they would spin, and where others want their cores, a
step would take up to twenty times as long."""


class RunningEngine(Protocol):
    """An engine, wherever it is, as a worker holds it."""

    connection: Connection

    @property
    def pid(self) -> int | None:
        """Of its process, if that is on this machine."""
        ...

    def kill(self) -> None:
        """Ends it whatever it is doing."""
        ...

    def end(self) -> str:
        """Closes the connection, waits for the end, not for long, and says what it was."""
        ...


class EngineThread:
    """An engine in a thread, with a model that is already in this process."""

    pid = None

    def __init__(self, load: Load, limits: WorkerLimits) -> None:
        self.connection, theirs = Pipe()
        self._thread = threading.Thread(target=Engine(theirs, load, limits).work, name="model-engine", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """A thread cannot be killed."""

    def end(self) -> str:
        """Closes the connection, waits for the end, and says what it was."""
        self.connection.close()
        self._thread.join()
        return "ended"


class EngineProcess(ChildProcess):
    """An engine in a process of its own."""

    def __init__(self, limits: WorkerLimits) -> None:
        super().__init__(__name__, limits, THREADS, own_session=True)


def main(connection: Connection) -> None:
    """The process."""

    def left() -> None:
        time.sleep(LEAVE_SECONDS)
        os._exit(1)

    Engine(connection, load_choice, connection.recv(), left).work()
