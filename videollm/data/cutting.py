"""Cutting media in a process that can be killed: `Cutter`.

A cut decodes and encodes, and the file may be anybody's. So it happens in a child that is kept for the next cut: its
memory is limited, an alarm ends a cut that takes too long, and when it dies on a file, only that file is lost. It ends
when its parent does.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from videollm import errors
from videollm.errors import DecoderCrashedError, MediaError, MediaLimitError, VideoLLMError
from videollm.media.source import Limits

CUT_LIMITS = Limits(wall_seconds=600.0, memory_bytes=4 * 1024**3)
"""Of one cut: a long stretch of a large video is encoded in minutes, on a slow machine."""
MOST_BYTES = 2 * 1024**3
"""Of the file that a cut may write."""


class Cutter:
    """Cuts stretches out of media files; for use as a context manager, by one thread."""

    def __init__(self, limits: Limits = CUT_LIMITS) -> None:
        self.limits = limits
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, at once."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def kill(self) -> None:
        """From another thread: end the cut that is being made, as if its process had died."""
        child = self._child
        if child is not None:
            child.kill()

    def cut(self, src: Path, dst: Path, start_seconds: float, end_seconds: float) -> None:
        """Write [start, end) of a file as another.

        Raises:
            MediaError: the source cannot be read or cut, or that costs more than the limits.
        """
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it died while there was nothing to do
        child = self._child
        if child is None:
            root = str(Path(__file__).resolve().parents[2])
            single = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
            path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
            child = self._child = subprocess.Popen(
                [sys.executable, "-c", "from videollm.data.cutting import _serve; _serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | single | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the caller, who then ends the work
            )
        assert child.stdin is not None and child.stdout is not None
        order = {
            "src": str(src), "dst": str(dst), "start": start_seconds, "end": end_seconds,
            "limits": asdict(self.limits),
        }  # fmt: skip
        # The child's own alarm is first; this one is for a child that cannot even be woken.
        watch = threading.Timer(self.limits.wall_seconds + 30, child.kill)
        watch.daemon = True
        watch.start()
        answer = ""
        try:
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except (OSError, ValueError):
            pass
        finally:
            watch.cancel()
        if not answer.endswith("\n"):
            code = child.wait()
            self.close()
            if code == -signal.SIGALRM:
                raise MediaLimitError(
                    f"{src.name}: cutting took longer than the limit of {self.limits.wall_seconds:g} s; cut it with "
                    "another tool first"
                )
            raise DecoderCrashedError(
                f"{src.name}: the process that cut it died (exit {code}); the file is damaged or hostile: re-encode it"
            )
        told = json.loads(answer)
        if "error" in told:
            kind = getattr(errors, told["error"], None)
            kind = kind if isinstance(kind, type) and issubclass(kind, MediaError) else DecoderCrashedError
            raise kind(told["message"])


def _serve() -> None:
    """In the child: carry out orders, one a line, until there are no more."""
    from videollm.media.write import cut_clip

    answers = os.fdopen(os.dup(1), "w")  # what a decoder might print must not stand between the answers
    os.dup2(2, 1)
    for which, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, MOST_BYTES)):
        with suppress(OSError, ValueError):
            resource.setrlimit(which, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows too large is an error of writing it
    for line in sys.stdin:
        order = json.loads(line)
        limits = Limits(**order["limits"])
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
        signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
        try:
            cut_clip(order["src"], order["dst"], order["start"], order["end"], limits=limits)
            told = {}
        except VideoLLMError as error:
            told = {"error": type(error).__name__, "message": str(error)}
        except MemoryError:
            told = {"error": "MediaLimitError", "message": f"{Path(order['src']).name}: cutting needs too much memory"}
        except Exception as error:  # whatever a damaged file brings out of a decoder: it costs this file only
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            told = {"error": "MediaUnreadableError", "message": f"{Path(order['src']).name}: cannot be cut ({what})"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(told) + "\n")
        answers.flush()
