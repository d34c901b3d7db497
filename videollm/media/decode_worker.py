"""Untrusted media files as clips: `open_clip` decodes in a process that can be killed, and that cannot do much else.

Three processes take part. The caller opens the file, and keeps the clock. A server, started once (it imports only numpy
and PyAV, never torch: about a fifth of a second), does nothing but fork. Each file gets a fresh fork of it (a few
milliseconds) that receives the open file and one end of a socket, lowers its own limits (memory, processor time, open
files; no core dumps, not a byte written to any file), decodes, and sends plain JSON and arrays, which the caller
checks. So a hang, a crash or a hostile file costs one process and becomes one error line, and files never meet.
`open_windows` has a worker send one window after the other, each within the limits, and waits for none: the next one is
decoded while the caller is busy with the last.

The server ends by itself a few seconds after the last file, with the caller, and at once when the caller dies.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from videollm import errors
from videollm.clips import Clip, Frames, Waveform
from videollm.errors import DecoderCrashedError, MediaError, MediaLimitError, VideoLLMError
from videollm.media.read import DECODERS, Survey, clip_of, info_of, read_clip, stretch_of, survey_of
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import (
    DEFAULT_LIMITS,
    Limits,
    MediaInfo,
    SourceFile,
    in_bytes,
    in_seconds,
    memory_error,
    open_source,
    source_from_descriptor,
)
from videollm.media.windows import Window, WindowedFile, WindowSampling, spans_of, windows_of

__all__ = [
    "OpenWindows",
    "close_server",
    "inspect_clip",
    "open_clip",
    "open_windows",
    "read_clip",
    "start_server",
    "survey_file",
]

IDLE_SECONDS = 5.0
"""The server is closed when no file was opened for so long."""
START_SECONDS = 30.0
"""How long the server may take to start, on a very busy machine."""
HEADER_BYTES = 4 * 1024**2
OPEN_FILES = 64
_LENGTH = struct.Struct("<Q")


def open_clip(
    path: str | os.PathLike[str],
    *,
    frames: FrameSampling | None = None,
    sound: SoundSampling | None = None,
    decoder: str = "pyav",
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    survey: Survey | None = None,
) -> Clip:
    """Read any media file, safely: the chosen frames and stretches of sound, with their seconds.

    Args:
        frames: which frames of a video; None looks at none (a still image is always read).
        sound: which stretches of the sound; None listens to none.
        decoder: "pyav", or "decord" for the pictures of video files.
        limits: what the file may cost.
        name: what to call the clip; the file name if None.
        start_seconds, end_seconds: the stretch of the file that is read, see `read_clip`.
        survey: of `survey_file`; a stretch of a long file is then read without looking through all of it. Where the
            file has changed since, it is not used.

    Raises:
        MediaNotFoundError, MediaUnreadableError, MediaLimitError: as `read_clip`, and over a limit of wall time,
            processor time or memory.
        DecoderCrashedError: the decoding process died; this process is unharmed.
        MissingDependencyError: decord was asked for and is not installed.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, found {decoder!r}")
    order = {
        "do": "clip",
        "frames": None if frames is None else asdict(frames),
        "sound": None if sound is None else asdict(sound),
        "decoder": decoder,
        "stretch": stretch_of(start_seconds, end_seconds),
    }
    with open_source(path, limits, name) as source:
        known: Sequence[np.ndarray] = ()
        if survey is not None and survey.is_of(source):
            order["survey"], known = survey.to_plain()
        header, arrays = _in_worker(source, order, known)
        return _clip_from(source, header, arrays)


def survey_file(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS, name: str | None = None) -> Survey:
    """Looks through a video or sound once, safely, for stretches of it to be read. Raises as `open_clip`."""
    with open_source(path, limits, name) as source:
        header, arrays = _in_worker(source, {"do": "survey"})
        try:
            found = Survey.from_plain(header["survey"], arrays)
        except (KeyError, TypeError, ValueError):
            raise _garbled(source) from None
        if not 0 <= found.contents.end_seconds <= source.limits.duration_seconds:
            raise _garbled(source)
        return found


def inspect_clip(
    path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> MediaInfo:
    """What any media file declares about itself, read safely. Raises as `open_clip`."""
    with open_source(path, limits, name) as source:
        header, _ = _in_worker(source, {"do": "info"})
        try:
            return MediaInfo(**header["info"])
        except (KeyError, TypeError):
            raise _garbled(source) from None


class OpenWindows:
    """A file whose windows are being read; iterate over it once.

    Attributes:
        file: the file, and the times of its windows.
    """

    def __init__(self, source: SourceFile, worker: _Worker, sampling: WindowSampling) -> None:
        self._source, self._worker, self._sampling = source, worker, sampling
        header, _ = worker.receive()
        try:
            told = header["file"]
            duration = float(told["duration_seconds"])
            if not 0 <= duration <= source.limits.duration_seconds:
                raise ValueError("no such length")
            at_cuts = tuple(map(float, told["cuts_seconds"])) if sampling.cuts else ()
            if any(not 0 < one < other <= duration for one, other in pairwise((*at_cuts, duration))):
                raise ValueError("no such cuts")
            self.file = WindowedFile(
                source.name,
                str(told["kind"]),
                str(told["content_hash"]),
                duration,
                spans_of(sampling, duration, at_cuts),
                _told_notes(told["notes"]),
                at_cuts,
            )
        except (KeyError, TypeError, ValueError):
            raise _garbled(source) from None

    def __iter__(self) -> Iterator[Window]:
        last = self._sampling.first - 1
        while True:
            header, arrays = self._worker.receive()
            if "end" in header:
                return
            index = header.get("window")
            if not isinstance(index, int) or not last < index < len(self.file.spans):
                raise _garbled(self._source)
            last = index
            yield Window(index, *self.file.spans[index], _clip_from(self._source, header, arrays))


@contextlib.contextmanager
def open_windows(
    path: str | os.PathLike[str],
    sampling: WindowSampling,
    *,
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Iterator[OpenWindows]:
    """Read a video or sound of any length window by window, safely; see `videollm.media.windows`.

    The limits on memory, pixels, sound and time hold for every window; those on the file for the whole.

    Raises:
        MediaError: as `open_clip`, here or while windows are read.
    """
    with open_source(path, limits, name) as source:
        with _Worker(source, {"do": "windows", "windows": sampling.to_dict()}) as worker:
            yield OpenWindows(source, worker, sampling)
        source.check_unchanged()


def start_server() -> None:
    """Start the server now and do not wait for it, so that the first file need not."""
    _server.start()


def close_server() -> None:
    """End the server and wait until it is gone. The next file starts another."""
    _server.close()


# In the caller's process


class _Server:
    """The caller's end of the server. Any thread may use it; a process forked off this one gets its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._busy = 0
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._drop()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            root = str(Path(__file__).resolve().parents[2])
            # -I and -S keep the current folder, the environment and start-up hooks out; our own path is passed on.
            known = [root, *(entry for entry in sys.path if entry and os.path.isabs(entry))]
            code = (
                "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
                "from videollm.media.decode_worker import _serve; _serve(int(sys.argv[1]))"
            )
            single = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno()), json.dumps(known)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | single,
                    start_new_session=True,  # Ctrl-C is for the caller, who then ends the work
                )
            self._control = ours
            ours.settimeout(START_SECONDS)

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()  # the server ends when this end is closed
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._drop()

    def forget(self) -> None:
        """After a fork, in the new process: the server belongs to the old one."""
        self._lock = threading.RLock()
        if self._control is not None:
            self._control.close()
        self._control = self._process = self._timer = None
        self._busy = 0

    def spawn(self, fds: Sequence[int]) -> int:
        """Fork a worker that receives the descriptors; its process id."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for attempt in (1, 2):
                try:
                    self.start()
                    assert self._control is not None
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                    self._control.sendmsg([json.dumps({"do": "fork"}).encode()], rights)
                    answer = json.loads(self._control.recv(4096) or b"{}")
                    if "pid" in answer:
                        self._busy += 1
                        return int(answer["pid"])
                except (OSError, ValueError):
                    pass
                self._drop()
                if attempt == 2:
                    break
        raise DecoderCrashedError(
            "the decoding process could not be started (no answer from it); look for free memory and processes, and "
            "try again"
        )

    def reap(self, pid: int) -> int | None:
        """Wait for a worker that is ending; its wait status, None where that is not known."""
        with self._lock:
            self._busy = max(self._busy - 1, 0)
            status = None
            if self._control is not None:
                try:
                    self._control.sendmsg([json.dumps({"do": "reap", "pid": pid}).encode()])
                    status = json.loads(self._control.recv(4096) or b"{}").get("status")
                except (OSError, ValueError):
                    self._drop()
            if not self._busy:
                self._timer = threading.Timer(IDLE_SECONDS, self._close_if_idle)
                self._timer.daemon = True
                self._timer.start()
            return status

    def _close_if_idle(self) -> None:
        with self._lock:
            if not self._busy:
                self._drop()


_server = _Server()
atexit.register(_server.close)
os.register_at_fork(after_in_child=lambda: _server.forget())


def _in_worker(
    source: SourceFile, order: dict[str, Any], known: Sequence[np.ndarray] = ()
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Send one order, with the arrays that go with it, to a worker of its own; the header and arrays of its answer."""
    with _Worker(source, order, known) as worker:
        return worker.receive()


class _Worker:
    """A worker with its order, for use as a context manager; it is gone afterwards, whatever it was doing."""

    def __init__(self, source: SourceFile, order: dict[str, Any], known: Sequence[np.ndarray] = ()) -> None:
        self._source, self._known = source, known
        self._order = order | {"name": source.name, "limits": source.limits.to_dict()}
        self._order["arrays"] = [(each.dtype.name, each.shape) for each in known]
        self._status: int | None = None
        self._pid: int | None = None

    def __enter__(self) -> _Worker:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._pid = _server.spawn([self._source.handle.fileno(), theirs.fileno()])
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        self._reap()

    def _reap(self) -> None:
        if self._pid is not None:
            pid, self._pid = self._pid, None
            self._status = _server.reap(pid)

    def receive(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The next header and arrays, for which the worker has the time of the limits.

        Raises:
            MediaError: what the worker found, or its end.
        """
        source, limits = self._source, self._source.limits
        deadline = time.monotonic() + limits.wall_seconds
        try:
            if self._order:
                text, self._order = json.dumps(self._order).encode(), {}
                self._socket.settimeout(limits.wall_seconds)
                self._socket.sendall(_LENGTH.pack(len(text)) + text)
                _send(self._socket, self._known)
            header, arrays = _receive(source, self._socket, deadline)
        except (ConnectionError, EOFError):
            self._reap()
            raise _died(source, self._status) from None
        except TimeoutError:
            raise MediaLimitError(
                f"{source.name}: decoding took longer than the limit of {in_seconds(limits.wall_seconds)} and was "
                "stopped; use a smaller copy of the file, or raise the limit"
            ) from None
        if "error" in header:
            kind = getattr(errors, str(header["error"]), None)
            if not (isinstance(kind, type) and issubclass(kind, VideoLLMError)):
                kind = DecoderCrashedError
            message = " ".join(str(header.get("message", "")).split())[:1000]
            raise kind(message or f"{source.name}: the decoding process reported an error without words")
        return header, arrays


def _receive(source: SourceFile, sock: socket.socket, deadline: float) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What a worker sends, checked against the limits before any memory is taken for it."""
    length = _LENGTH.unpack(_take(sock, _LENGTH.size, deadline))[0]
    if length > HEADER_BYTES:
        raise _garbled(source)
    try:
        header = json.loads(_take(sock, length, deadline))
        wanted = [(str(dtype), tuple(int(n) for n in shape)) for dtype, shape in header.get("arrays", ())]
    except (ValueError, TypeError, AttributeError):
        raise _garbled(source) from None
    if any(
        dtype not in ("uint8", "float32", "float64", "int64", "bool") or min(shape, default=0) < 0
        for dtype, shape in wanted
    ):
        raise _garbled(source)
    total = sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in wanted)
    if total > source.limits.pixel_bytes + source.limits.sound_bytes + 2**20 or len(wanted) > 10_000:
        raise _garbled(source)
    arrays = [np.empty(shape, dtype) for dtype, shape in wanted]
    for each in arrays:
        if each.nbytes:
            _fill(sock, each.data.cast("B"), deadline)
    return header, arrays


def _garbled(source: SourceFile) -> DecoderCrashedError:
    return DecoderCrashedError(
        f"{source.name}: the decoding process sent something else than a clip; the file may be hostile"
    )


def _died(source: SourceFile, status: int | None) -> MediaError:
    """The error for a worker that ended without an answer."""
    number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
    if number == getattr(signal, "SIGXCPU", -1):
        return MediaLimitError(
            f"{source.name}: decoding needs more processor time than the limit of "
            f"{in_seconds(source.limits.cpu_seconds)}; use a smaller copy of the file, or raise the limit"
        )
    how = f"signal {signal.Signals(number).name}" if number in set(signal.Signals) else "it ended without an answer"
    return DecoderCrashedError(
        f"{source.name}: the decoding process died on this file ({how}); the file is damaged or hostile, or memory is "
        f"short (limit {in_bytes(source.limits.memory_bytes)}); re-encode it"
    )


def _told_notes(notes: Any) -> tuple[str, ...]:
    return tuple(" ".join(str(note).split())[:500] for note in notes)


def _clip_from(source: SourceFile, header: dict[str, Any], arrays: list[np.ndarray]) -> Clip:
    """A clip of what a worker sent. Floor 0's classes check themselves."""
    try:
        told = header["clip"]
        rest = iter(arrays)
        frames = None
        if told["frames"] is not None:
            lasts, count = told["frames"]
            frames = Frames(next(rest), next(rest), float(lasts), None if count is None else int(count))
        waveforms = None
        if told["waveforms"] is not None:
            waveforms = tuple(Waveform(next(rest), int(rate), float(start)) for rate, start in told["waveforms"])
        return Clip(
            name=source.name,
            kind=told["kind"],
            content_hash=str(told["content_hash"]),
            duration_seconds=float(told["duration_seconds"]),
            frames=frames,
            waveforms=waveforms,
            windows_seconds=tuple((float(start), float(end)) for start, end in told["windows_seconds"]),
            notes=_told_notes(told["notes"]),
        )
    except (KeyError, TypeError, ValueError, StopIteration):
        raise _garbled(source) from None


# In the server


def _serve(control_fd: int) -> NoReturn:
    """Fork workers until the other end of the control socket is closed."""
    control = socket.socket(fileno=control_fd)
    libc = _libc()
    children: set[int] = set()
    gc.collect()
    gc.freeze()  # so that workers share this process's memory
    while True:
        try:
            message, rights, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(4 * array.array("i").itemsize))
        except OSError:
            message, rights = b"", []
        if not message:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        fds = array.array("i")
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        order = json.loads(message)
        answer: dict[str, Any] = {}
        if order["do"] == "fork" and len(fds) == 2:
            server = os.getpid()
            try:
                pid = os.fork()
            except OSError as error:
                answer = {"error": str(error)}
            else:
                if pid == 0:
                    control.close()
                    _work(fds[0], fds[1], server, libc)
                children.add(pid)
                answer = {"pid": pid}
        elif order["do"] == "reap" and order["pid"] in children:
            os.kill(order["pid"], signal.SIGKILL)
            answer = {"status": os.waitpid(order["pid"], 0)[1]}
            children.discard(order["pid"])
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(OSError):
            control.send(json.dumps(answer).encode())


def _libc() -> ctypes.CDLL | None:
    """For prctl, where there is one."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None


# In a worker


def _work(media_fd: int, socket_fd: int, server: int, libc: ctypes.CDLL | None) -> NoReturn:
    """Carry out one order and end. Nothing is cleaned up: the process ends."""
    try:
        if libc is not None:
            libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: never outlive the server
            libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
            if os.getppid() != server:
                os._exit(1)
        sock = socket.socket(fileno=socket_fd)
        length = _LENGTH.unpack(_take(sock, _LENGTH.size))[0]
        order = json.loads(_take(sock, length))
        shapes = [(dtype, math.prod(shape) * np.dtype(dtype).itemsize) for dtype, shape in order.pop("arrays")]
        known = [np.frombuffer(_take(sock, size), dtype) for dtype, size in shapes]
        limits = Limits(**order["limits"])
        several = order["do"] == "windows"
        _lower_limits(limits, for_one=not several)
        for header, arrays in _carry_out(media_fd, order, limits, known):
            header["arrays"] = [(each.dtype.name, each.shape) for each in arrays]
            text = json.dumps(header).encode()
            sock.sendall(_LENGTH.pack(len(text)) + text)
            _send(sock, arrays)
            if several:
                _allow_more_processor_time(limits)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _take(sock: socket.socket, count: int, deadline: float | None = None) -> bytearray:
    block = bytearray(count)
    _fill(sock, memoryview(block), deadline)
    return block


def _fill(sock: socket.socket, view: memoryview, deadline: float | None = None) -> None:
    while view:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]


def _send(sock: socket.socket, arrays: Sequence[np.ndarray]) -> None:
    for each in arrays:
        if each.nbytes:
            sock.sendall(np.ascontiguousarray(each).data.cast("B"))


def _lower_limits(limits: Limits, for_one: bool = True) -> None:
    """Limits of one answer; where there are several, that on processor time can be raised for each of them."""
    import resource

    cpu = max(1, math.ceil(limits.cpu_seconds))
    most_cpu = cpu + 1 if for_one else resource.RLIM_INFINITY
    for which, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (resource.RLIMIT_CPU, cpu, most_cpu),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
    ):
        _, most = resource.getrlimit(which)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(which, (soft, hard))


def _allow_more_processor_time(limits: Limits) -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    used = math.ceil(time.process_time() + limits.cpu_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (used if most == resource.RLIM_INFINITY else min(used, most), most))


def _carry_out(
    media_fd: int, order: dict[str, Any], limits: Limits, known: Sequence[np.ndarray] = ()
) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    """The answers to an order: a clip, what the file declares, windows one by one; or an error, last."""
    name = str(order["name"])
    try:
        with source_from_descriptor(media_fd, limits, name) as source:
            try:
                if order["do"] == "info":
                    yield {"info": asdict(info_of(source))}, []
                    return
                if order["do"] == "survey":
                    told, arrays = survey_of(source).to_plain()
                    yield {"survey": told}, arrays
                    return
                if order["do"] == "windows":
                    yield from _told_windows(source, WindowSampling.from_dict(order["windows"]))
                    return
                frames = None if order["frames"] is None else FrameSampling(**order["frames"])
                sound = None if order["sound"] is None else SoundSampling(**order["sound"])
                stretch = None if order["stretch"] is None else tuple(order["stretch"])
                survey = Survey.from_plain(order["survey"], known) if "survey" in order else None
                yield _plain(
                    clip_of(
                        source, frames=frames, sound=sound, decoder=order["decoder"], stretch=stretch, survey=survey
                    )
                )
            except MemoryError:
                raise memory_error(source) from None
    except VideoLLMError as error:
        yield {"error": type(error).__name__, "message": str(error)}, []
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        message = f"{name}: decoding failed in an unexpected way ({what}); the file may be damaged: re-encode it"
        yield {"error": "DecoderCrashedError", "message": message}, []


def _told_windows(source: SourceFile, sampling: WindowSampling) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    """The windows of a file as JSON and arrays: first what is known of the whole, then each, then that it was all."""
    for part in windows_of(source, sampling):
        if isinstance(part, Window):
            header, arrays = _plain(part.clip)
            yield header | {"window": part.index}, arrays
        else:
            names = ("kind", "content_hash", "duration_seconds", "notes", "cuts_seconds")
            told = {name: getattr(part, name) for name in names}
            yield {"file": told}, []
    yield {"end": True}, []


def _plain(clip: Clip) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A clip as JSON and arrays."""
    arrays = [] if clip.frames is None else [clip.frames.pixels, clip.frames.seconds]
    arrays += [wave.samples for wave in clip.waveforms or ()]
    told = {
        "kind": clip.kind,
        "content_hash": clip.content_hash,
        "duration_seconds": clip.duration_seconds,
        "frames": None if clip.frames is None else (clip.frames.duration_seconds, clip.frames.of_frames),
        "waveforms": None if clip.waveforms is None else [(w.rate_hz, w.start_seconds) for w in clip.waveforms],
        "windows_seconds": clip.windows_seconds,
        "notes": clip.notes,
    }
    return {"clip": told}, arrays
