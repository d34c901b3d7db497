"""A process of this program beside this one, with a connection to it.

It is started anew, not forked: a fork of a process that has used threads or a GPU does not work. It should end when its
connection does, and on Linux ends with the thread that started it, so that nothing is left of it when this process is
killed, even while it is still importing.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

CODE = """
import ctypes, json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
sys.path[:] = json.loads(sys.argv[3])
from videollm.tools.child_process import begin
begin(sys.argv[1], int(sys.argv[2]))
"""
LEAVE_SECONDS = 3.0
"""How long a process may still take to end when its connection was closed."""


class ChildProcess:
    """Runs ``main(connection)`` of a module; Ctrl-C is for the one that started it, which then ends the work.

    Args:
        module: its name.
        first: what it is sent first.
        environment: what its environment says where that of this process says nothing.
        own_session: it gets no signals that are sent to this process's group.
    """

    def __init__(self, module: str, first: Any, environment: Mapping[str, str], *, own_session: bool = False) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE, module, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environment, **os.environ},
                start_new_session=own_session,
            )
        self.connection = Connection(ours.detach())
        self.connection.send(first)

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


def begin(module: str, descriptor: int) -> None:
    """In the process: its module's share."""
    os.set_inheritable(descriptor, False)
    importlib.import_module(module).main(Connection(descriptor))
