"""The decoding process: the same clips, nothing left behind, and any end of it is one error."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.media.numbered import ALL_FRAMES, SOUND, numbered_frames, numbers_of, smooth_noise, tones
from tests.media.processes import own_children
from videollm.errors import DecoderCrashedError, MediaError, MediaLimitError, MediaUnreadableError
from videollm.media import decode_worker
from videollm.media.decode_worker import close_server, inspect_clip, open_clip, read_clip, start_server
from videollm.media.read import probe
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import Limits
from videollm.media.write import write_sound, write_video

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_process_and_no_descriptor_left() -> Iterator[None]:
    close_server()
    before = set(os.listdir("/proc/self/fd"))
    yield
    close_server()
    assert own_children() == []
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / 'it\'s a "clip" — ünï 視頻.mp4'
    return write_video(path, numbered_frames(50), fps=25, waveform=tones(2.0))


@pytest.fixture(scope="module")
def slow_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seconds of work for a decoder: large noisy frames, all of which must be decoded for the last."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 720, 1280, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("slow") / "slow.mp4"
    return write_video(path, (noise[i % 2] for i in range(60)), fps=30, preset="ultrafast", quality=1, key_every=1000)


def test_same_clip_as_in_this_process(video: Path) -> None:
    for sound in (SOUND, SoundSampling("contiguous", 32, 0.5), None):
        ours = read_clip(video, frames=ALL_FRAMES, sound=sound)
        theirs = open_clip(video, frames=ALL_FRAMES, sound=sound)
        assert ours.frames is not None and theirs.frames is not None
        np.testing.assert_array_equal(ours.frames.pixels, theirs.frames.pixels)
        np.testing.assert_array_equal(ours.frames.seconds, theirs.frames.seconds)
        assert (ours.waveforms is None) == (theirs.waveforms is None)
        for a, b in zip(ours.waveforms or (), theirs.waveforms or (), strict=True):
            np.testing.assert_array_equal(a.samples, b.samples)
            assert (a.rate_hz, a.start_seconds) == (b.rate_hz, b.start_seconds)
        for field in ("name", "kind", "content_hash", "duration_seconds", "windows_seconds", "notes"):
            assert getattr(ours, field) == getattr(theirs, field)


def test_what_a_file_declares(video: Path) -> None:
    assert inspect_clip(video) == probe(video)
    assert inspect_clip(video).name == video.name


def test_one_server_for_many_files_and_none_when_idle(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_worker, "IDLE_SECONDS", 0.3)
    start_server()
    servers = set()
    for _ in range(3):
        open_clip(video, frames=FrameSampling(frames=1))
        servers |= {child.pid for child in own_children(recursive=False)}
    assert len(servers) == 1
    deadline = time.monotonic() + 10
    while own_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert own_children() == []
    assert numbers_of(open_clip(video, frames=FrameSampling(frames=1))) == [0]


def test_many_threads_at_once(video: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda _: open_clip(video, frames=ALL_FRAMES), range(8)))
    assert all(numbers_of(clip) == list(range(50)) for clip in clips)


def test_a_forked_process_gets_its_own_server(video: Path) -> None:
    open_clip(video, frames=FrameSampling(frames=1))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if numbers_of(open_clip(video, frames=FrameSampling(frames=2))) == [0, 25] else 2
            close_server()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert numbers_of(open_clip(video, frames=FrameSampling(frames=2))) == [0, 25]


def test_wall_time_limit(slow_video: Path) -> None:
    started = time.monotonic()
    with pytest.raises(MediaLimitError, match=r"took longer than the limit of 0\.2 s"):
        open_clip(slow_video, frames=FrameSampling(frames=40), limits=Limits(wall_seconds=0.2))
    assert time.monotonic() - started < 5


def test_processor_time_limit(slow_video: Path) -> None:
    sampling = FrameSampling("rate", rate_hz=30, max_frames=60)
    with pytest.raises(MediaLimitError, match=r"processor time than the limit of 1\.0 s"):
        open_clip(slow_video, frames=sampling, limits=Limits(cpu_seconds=1.0))
        pytest.skip("this machine decodes the file within the limit")


def test_memory_limit(video: Path, slow_video: Path) -> None:
    small = Limits(memory_bytes=1)
    with pytest.raises(MediaError, match="memory") as caught:
        open_clip(video, frames=FrameSampling(frames=1), limits=small)
    assert isinstance(caught.value, (MediaLimitError, DecoderCrashedError))
    used = psutil.Process().memory_info().vms
    assert used > 0
    assert numbers_of(open_clip(video, frames=FrameSampling(frames=1))) == [0], "the next file is fine"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_of_the_decoder_is_one_error(slow_video: Path, number: signal.Signals) -> None:
    start_server()

    def strike() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            workers = [g for child in own_children(recursive=False) for g in child.children()]
            if workers:
                time.sleep(0.1)
                os.kill(workers[0].pid, number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=strike)
    thread.start()
    with pytest.raises(DecoderCrashedError, match=rf"^slow.mp4: .*{number.name}") as caught:
        open_clip(slow_video, frames=FrameSampling(frames=40))
    thread.join()
    assert "\n" not in str(caught.value)
    assert open_clip(slow_video, frames=FrameSampling(frames=1)).kind == "video"


def test_a_dead_server_is_replaced(video: Path) -> None:
    open_clip(video, frames=FrameSampling(frames=1))
    (server,) = own_children(recursive=False)
    server.kill()
    server.wait()
    assert numbers_of(open_clip(video, frames=FrameSampling(frames=1))) == [0]


def test_nothing_outlives_a_killed_caller(slow_video: Path) -> None:
    program = (
        "import sys; from videollm.media.decode_worker import open_clip; "
        "from videollm.media.sampling import FrameSampling; print('go', flush=True); "
        "[open_clip(sys.argv[1], frames=FrameSampling(frames=40)) for _ in range(99)]"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", program, str(slow_video)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert caller.stdout is not None and caller.stdout.readline() == b"go\n"
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 20
    while len(family) < 2 and time.monotonic() < deadline:
        family = psutil.Process(caller.pid).children(recursive=True)
        time.sleep(0.02)
    assert len(family) == 2, "a server and a worker"
    caller.kill()
    caller.communicate()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == [] and len(gone) == 2


def test_the_process_is_small_and_quiet(video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = video.with_name("broken.mp4")
    body = bytearray(video.read_bytes())
    middle = body.index(b"mdat") + 600
    body[middle : middle + 3000] = bytes(3000)
    broken.write_bytes(body)
    for path in (video, broken):
        try:
            open_clip(path, frames=ALL_FRAMES, sound=SOUND)
        except MediaError as error:
            assert "\n" not in str(error)
    (server,) = own_children(recursive=False)
    assert server.memory_info().rss < 150 * 1024**2
    assert not any("torch" in mapped.path for mapped in server.memory_maps())
    assert capfd.readouterr() == ("", "")


def test_the_worker_can_write_no_file_and_dump_no_core(video: Path, tmp_path: Path) -> None:
    """`_lower_limits`, in a fork of this process as in the worker."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            decode_worker._lower_limits(Limits())
            assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            try:
                (tmp_path / "written").write_bytes(b"x")
            except OSError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_answers_of_a_hostile_worker_are_refused(video: Path) -> None:
    """Whatever comes over the socket is checked before memory is taken for it."""
    from videollm.media.source import open_source

    def sent(*blocks: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, open_source(video) as source:
            for block in blocks:
                theirs.sendall(block)
            theirs.shutdown(socket.SHUT_WR)
            header, arrays = decode_worker._receive(source, ours, time.monotonic() + 5)
            decode_worker._clip_from(source, header, arrays)

    def framed(text: str) -> bytes:
        return len(text).to_bytes(8, "little") + text.encode()

    for blocks in (
        [(2**60).to_bytes(8, "little")],
        [framed("[1, 2]")],
        [framed("{not json")],
        [framed('{"arrays": [["uint8", [100000, 100000, 3]]]}')],
        [framed('{"arrays": [["object", [1]]]}')],
        [framed('{"arrays": [["uint8", [-5]]]}')],
        [framed('{"clip": {"kind": "video"}}')],
    ):
        with pytest.raises(DecoderCrashedError, match="something else than a clip"):
            sent(*blocks)
    with pytest.raises(EOFError):
        sent(framed('{"arrays": [["uint8", [10]]]}'), b"four")


def test_errors_keep_their_class_and_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "no frames.mp4"
    path.write_bytes(b"hello, this is not a video\n" * 50)
    with pytest.raises(MediaUnreadableError, match=r"^my clip: this is text"):
        open_clip(path, frames=ALL_FRAMES, name="my clip")
    with pytest.raises(ValueError, match="decoder must be"):
        open_clip(path, decoder="opencv")


def test_a_picture_and_a_sound(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(smooth_noise(1)).save(tmp_path / "a.png")
    clip = open_clip(tmp_path / "a.png", frames=ALL_FRAMES, sound=SOUND)
    assert clip.kind == "image" and clip.frames is not None
    np.testing.assert_array_equal(clip.frames.pixels[0], smooth_noise(1))
    heard = open_clip(write_sound(tmp_path / "a.flac", tones(1.0)), frames=ALL_FRAMES, sound=SOUND)
    assert heard.kind == "audio" and heard.frames is None and heard.waveforms is not None


def test_a_process_that_cannot_be_started_is_one_line(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close_server()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(DecoderCrashedError, match="could not be started") as caught:
        open_clip(video)
    assert "\n" not in str(caught.value)
