"""Where an engine runs: in a process that can be killed, or in a thread of this one.

The process is started anew, not forked: a fork of a process that has used threads or a GPU does not work. It ends when
its connection does, and on Linux with the thread that started it, so that nothing is left of it when this process is
killed, even while it is still importing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Protocol

from videollm.serving.engine import Engine, Load, WorkerLimits, load_choice

CODE = """
import ctypes, json, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
sys.path[:] = json.loads(sys.argv[2])
from videollm.serving.engine_process import main
main(int(sys.argv[1]))
"""
THREADS = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) - 1, 1)), "OMP_WAIT_POLICY": "PASSIVE"}
"""Of an engine that computes on the processor, where the environment does not say. A core is left to what reads files
and speaks with clients. Threads that wait for one another sleep: they would spin, and where others want their cores, a
step would take up to twenty times as long."""
LEAVE_SECONDS = 3.0
"""How long an engine may still take to end when its connection was closed."""


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


class EngineProcess:
    """An engine in a process of its own."""

    def __init__(self, limits: WorkerLimits) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=THREADS | os.environ,
                start_new_session=True,  # Ctrl-C is for this process, which then ends the work
            )
        self.connection = Connection(ours.detach())
        self.connection.send(limits)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Whatever it is doing."""
        self._process.kill()

    def end(self) -> str:
        """Closes the connection, waits for the end, not for long, and says what it was."""
        self.connection.close()
        try:
            code = self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def main(descriptor: int) -> None:
    """The process."""
    os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)

    def left() -> None:
        time.sleep(LEAVE_SECONDS)
        os._exit(1)

    Engine(connection, load_choice, connection.recv(), left).work()
