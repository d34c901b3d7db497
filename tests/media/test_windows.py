"""Windows of a file: each is the clip that is read of its stretch, and none costs more than itself."""

from __future__ import annotations

import itertools
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.media.numbered import number_of, numbered_frames, tones
from tests.media.processes import own_children
from videollm.clips import Clip, Waveform
from videollm.errors import DecoderCrashedError, MediaError, MediaLimitError, MediaStretchError, MediaUnreadableError
from videollm.media import decode_worker, video
from videollm.media.decode_worker import close_server, open_windows
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling, segment_centre_indices
from videollm.media.source import Limits, open_source
from videollm.media.windows import Window, WindowedFile, WindowSampling, windows_of
from videollm.media.write import write_sound, write_video

RATE = FrameSampling("rate", rate_hz=4.0)
FOUR = FrameSampling("centre", frames=4)
SOUND = SoundSampling("contiguous", 32, 0.5)


def here(path: Path, sampling: WindowSampling, limits: Limits | None = None) -> tuple[WindowedFile, list[Window]]:
    """What `windows_of` gives in this process."""
    with open_source(path, limits or Limits()) as source:
        file, *found = windows_of(source, sampling)
    assert isinstance(file, WindowedFile)
    return file, [window for window in found if isinstance(window, Window)]


def same(window: Window, clip: Clip, sound_atol: float = 0.0) -> None:
    """AAC that is decoded from another packet on differs by rounding, 5e-6 at most; pictures never do."""
    assert window.clip.kind == clip.kind
    assert (window.clip.frames is None) == (clip.frames is None)
    if clip.frames is not None:
        np.testing.assert_array_equal(window.clip.frames.pixels, clip.frames.pixels)
        np.testing.assert_allclose(window.clip.frames.seconds, clip.frames.seconds, atol=1e-9)
        assert window.clip.frames.duration_seconds == pytest.approx(clip.frames.duration_seconds)
    assert (window.clip.waveforms is None) == (clip.waveforms is None)
    if clip.waveforms is not None:
        (ours,), (theirs,) = window.clip.waveforms, clip.waveforms
        np.testing.assert_allclose(ours.samples, theirs.samples, rtol=0, atol=sound_atol)
        assert ours.start_seconds == pytest.approx(theirs.start_seconds, abs=1e-9)
        np.testing.assert_allclose(window.clip.windows_seconds, clip.windows_seconds, atol=1e-9)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11.3 s of numbered frames and sound, a key frame every 1.2 s, reordered frames."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, numbered_frames(226), fps=20, waveform=tones(11.3), key_every=24)


@pytest.mark.parametrize(
    ("length", "stride", "frames"), [(2.0, 2.0, RATE), (2.0, 0.7, FOUR), (1.0, 3.0, FrameSampling(frames=3))]
)
def test_a_window_is_the_clip_of_its_stretch(film: Path, length: float, stride: float, frames: FrameSampling) -> None:
    file, found = here(film, WindowSampling(length, stride, frames, SOUND))
    assert file.kind == "video" and file.duration_seconds == pytest.approx(11.3, abs=0.1)
    assert [(w.start_seconds, w.end_seconds) for w in found] == list(file.spans)
    assert [w.index for w in found] == list(range(len(file.spans)))
    assert file.spans[0] == (0.0, length) and file.spans[1][0] == stride
    for window in found:
        clip = read_clip(
            film, frames=frames, sound=SOUND, start_seconds=window.start_seconds, end_seconds=window.end_seconds
        )
        same(window, clip, 1e-5)


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.ts", "film.webm"])
def test_windows_of_other_containers(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, numbered_frames(120, 96, 128), fps=20, waveform=tones(6.0, 48000, 1))
    _, found = here(path, WindowSampling(1.5, 1.0, RATE, SOUND))
    assert len(found) == 6 and [w.start_seconds for w in found] == [0, 1, 2, 3, 4, 5]
    for window in found:
        assert window.clip.frames is not None and window.clip.waveforms is not None
        start = window.start_seconds * 20
        want = [start + round(s * 20) for s in window.clip.frames.seconds]
        assert name == "film.ts" or [number_of(pixels) for pixels in window.clip.frames.pixels] == want
        clip = read_clip(path, frames=RATE, start_seconds=window.start_seconds, end_seconds=window.end_seconds)
        np.testing.assert_array_equal(window.clip.frames.pixels, clip.frames.pixels)
        assert window.clip.waveforms[0].duration_seconds == pytest.approx(
            window.end_seconds - window.start_seconds, abs=0.06
        )


def test_everything_is_decoded_once(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    feed = video._Decoding.feed
    monkeypatch.setattr(
        video._Decoding,
        "feed",
        lambda self, packet: (fed.append(0) if packet is not None else None, feed(self, packet))[1],
    )
    here(film, WindowSampling(2.0, 0.5, RATE, None))
    assert len(fed) <= 226
    fed.clear()
    here(film, WindowSampling(2.0, 0.5, RATE, None, first=18))
    assert len(fed) <= 226 - 7 * 24, "windows before the first were decoded"
    fed.clear()
    # A frame every 4 seconds: a few packets behind each key frame.
    here(film, WindowSampling(0.1, 4.0, FrameSampling(frames=1), None))
    assert len(fed) < 60


def test_windows_from_a_later_one_are_the_same(film: Path) -> None:
    sampling = {"length_seconds": 2.0, "stride_seconds": 0.7, "frames": RATE, "sound": SOUND}
    _, whole = here(film, WindowSampling(**sampling))
    for first in (1, 5, len(whole) - 1, len(whole)):
        _, rest = here(film, WindowSampling(**sampling, first=first))
        assert [window.index for window in rest] == list(range(first, len(whole)))
        for a, b in zip(whole[first:], rest, strict=True):
            same(a, b.clip)
            assert a.clip.content_hash == b.clip.content_hash


def test_a_stretch_of_a_file(film: Path) -> None:
    file, found = here(film, WindowSampling(2.0, 2.0, RATE, SOUND, start_seconds=3.1, end_seconds=8.0))
    np.testing.assert_allclose(file.spans, [(3.1, 5.1), (5.1, 7.1), (7.1, 8.0)])
    for window in found:
        clip = read_clip(
            film, frames=RATE, sound=SOUND, start_seconds=window.start_seconds, end_seconds=window.end_seconds
        )
        same(window, clip, 1e-5)
    with pytest.raises(MediaStretchError, match=r"lasts 11\.\d s, but what is asked of it starts at 20\.0 s"):
        here(film, WindowSampling(2.0, 2.0, RATE, SOUND, start_seconds=20.0))


def test_what_a_file_may_hold(tmp_path: Path) -> None:
    one = WindowSampling(2.0, 2.0, RATE, SOUND)
    silent = write_video(tmp_path / "silent.mp4", numbered_frames(50), fps=10)
    file, found = here(silent, one)
    assert file.spans == ((0, 2), (2, 4), (4, 5)) and all(window.clip.waveforms is None for window in found)
    sound = write_sound(tmp_path / "sound.wav", tones(3.0))
    file, found = here(sound, one)
    assert file.kind == "audio" and file.spans == ((0, 2), (2, 3))
    assert all(window.clip.frames is None and window.clip.waveforms for window in found)
    short = write_video(tmp_path / "short.mp4", numbered_frames(7), fps=10)
    file, found = here(short, WindowSampling(60.0, 60.0, RATE, SOUND))
    assert len(file.spans) == 1 and found[0].clip.frames.seconds.tolist() == [0.0, 0.2, 0.5]
    animated = write_video(tmp_path / "animated.gif", numbered_frames(30), fps=10)
    _, found = here(animated, one)
    assert [len(window.clip.frames) for window in found] == [8, 4]
    for name in ("picture.jpg", "picture.png", "picture.gif"):
        Image.fromarray(numbered_frames(1)[0]).save(tmp_path / name)
        with pytest.raises(MediaUnreadableError, match="a picture has no windows of time"):
            here(tmp_path / name, one)


def test_one_picture_for_minutes_and_a_hole_in_the_sound(tmp_path: Path) -> None:
    slides = write_video(
        tmp_path / "slides.mp4", numbered_frames(3), seconds=[0, 100, 200], end_seconds=300, waveform=tones(1.0)
    )
    _, found = here(slides, WindowSampling(30.0, 30.0, RATE, SOUND))
    assert len(found) == 10
    assert [number_of(window.clip.frames.pixels[0]) for window in found] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [window.clip.waveforms is not None for window in found] == [True] + [False] * 9
    late = write_video(
        tmp_path / "late.mkv",
        numbered_frames(8),
        fps=Fraction(1, 5),
        waveform=Waveform(tones(1.0).samples, 44100, 31.0),
    )
    _, found = here(late, WindowSampling(10.0, 10.0, RATE, SOUND))
    assert [window.clip.waveforms is not None for window in found] == [False, False, False, True]
    assert found[3].clip.waveforms[0].start_seconds == pytest.approx(1.0, abs=0.05)


def test_damage_in_the_middle(film: Path, tmp_path: Path) -> None:
    """Frames that do not decode are left out and counted; the others are those of the whole file."""
    data = bytearray(film.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 3000] = os.urandom(3000)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    try:
        _, found = here(broken, WindowSampling(1.0, 1.0, RATE, SOUND))
    except MediaError:
        pytest.fail("damage in the middle is no reason to give the rest up")
    assert found[0].clip.frames is not None
    assert number_of(found[-1].clip.frames.pixels[0]) in (220, 224)
    assert len(found) >= 9


# -- in the worker -----------------------------------------------------------------------------------------------------


@pytest.fixture
def workers():
    close_server()
    yield
    close_server()
    assert own_children() == []


def test_windows_from_the_worker_are_the_same(film: Path, workers) -> None:
    sampling = WindowSampling(2.0, 0.7, FOUR, SOUND)
    file, found = here(film, sampling)
    with open_windows(film, sampling) as opened:
        assert opened.file == file
        for a, b in itertools.zip_longest(found, opened):
            assert (a.index, a.start_seconds, a.end_seconds) == (b.index, b.start_seconds, b.end_seconds)
            same(a, b.clip)
            assert a.clip.content_hash == b.clip.content_hash and a.clip.notes == b.clip.notes


def test_leaving_early_ends_the_worker(film: Path, workers) -> None:
    with open_windows(film, WindowSampling(0.5, 0.5, RATE, SOUND)) as opened:
        next(iter(opened))
    close_server()
    assert own_children() == []


def test_limits_are_those_of_a_window(film: Path, workers) -> None:
    """The clock does not run while nobody asks, and processor time is counted anew for each window."""
    limits = Limits(wall_seconds=5.0, pixel_bytes=8 * 48 * 64 * 3)
    with open_windows(film, WindowSampling(2.0, 2.0, RATE, SOUND), limits=limits) as opened:
        found = list(opened)
    assert len(found) == 6 and all(window.clip.frames.pixels.nbytes <= limits.pixel_bytes for window in found)
    with (
        pytest.raises(MediaLimitError, match="sound to be heard needs more than the limit"),
        open_windows(film, WindowSampling(10.0, 10.0, None, SOUND), limits=Limits(sound_bytes=10**6)) as opened,
    ):
        list(opened)


def test_errors_reach_the_caller_as_one_line(tmp_path: Path, workers) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    text = tmp_path / "text.mp4"
    text.write_text("not a film")
    for path, match in ((empty, "empty"), (text, "this is text")):
        with pytest.raises(MediaUnreadableError, match=match), open_windows(path, WindowSampling(1, 1, RATE, None)):
            pass


def test_a_worker_that_dies_half_way_is_one_error(film: Path, workers) -> None:
    with (
        pytest.raises(DecoderCrashedError, match="died on this file"),
        open_windows(film, WindowSampling(0.2, 0.2, RATE, None)) as opened,
    ):
        for window in opened:
            if window.index == 2:
                for child in own_children():
                    for worker in child.children():
                        worker.kill()


def test_a_worker_that_says_something_else_is_refused(film: Path, workers, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        ({"file": {"kind": "video", "content_hash": "x", "duration_seconds": 4.0, "notes": []}}, []),
        ({"window": 9}, []),
    ]
    monkeypatch.setattr(decode_worker._Worker, "receive", lambda self: answers.pop(0))
    with (
        pytest.raises(DecoderCrashedError, match="something else than a clip"),
        open_windows(film, WindowSampling(1, 1, RATE, None)) as opened,
    ):
        list(opened)


def _decoded(path: Path) -> tuple[int, int]:
    """How many windows a file has, and the most memory its worker ever held, bytes."""
    most = count = 0
    with open_windows(path, WindowSampling(4.0, 4.0, RATE, SOUND)) as opened:
        (server,) = own_children(recursive=False)
        (worker,) = server.children()
        for _ in opened:
            count += 1
            with open(f"/proc/{worker.pid}/status") as status:
                most = max([most, *(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))])
    return count, most


def test_memory_does_not_grow_with_the_file(tmp_path: Path, workers) -> None:
    frames = numbered_frames(16)
    sizes = {}
    for seconds in (30, 400):
        count = 4 * seconds
        path = write_video(
            tmp_path / f"{seconds}.mp4", (frames[i % 16] for i in range(count)), fps=4, preset="ultrafast",
            waveform=Waveform(np.zeros((1, 8000 * seconds), np.float32), 8000),
        )  # fmt: skip
        sizes[seconds] = _decoded(path)
    assert [count for count, _ in sizes.values()] == [8, 100]
    assert sizes[400][1] - sizes[30][1] < 20e6


def test_memory_of_the_caller_does_not_grow(film: Path, workers) -> None:
    process = psutil.Process()
    with open_windows(film, WindowSampling(1.0, 0.05, RATE, SOUND)) as opened:
        reading = iter(opened)
        for _ in range(30):
            next(reading)
        before = process.memory_info().rss
        count = sum(1 for _ in reading)
    assert count > 150
    assert process.memory_info().rss - before < 10e6


# -- which frames ------------------------------------------------------------------------------------------------------


def test_middles_of_segments_as_published() -> None:
    """By hand, from the rule: step (L - 1) / n, segment i from round(step i) to min(round(step (i + 1)), L)."""
    assert segment_centre_indices(120, 4) == [15, 45, 74, 104]
    assert segment_centre_indices(4, 4) == [0, 1, 2, 2]
    assert segment_centre_indices(1, 4) == [0, 0, 0, 0]
    for count in range(1, 60):
        for n in range(1, 9):
            found = segment_centre_indices(count, n)
            assert len(found) == n and found == sorted(found) and found[0] >= 0 and found[-1] < count
    with pytest.raises(ValueError, match="at least 1"):
        segment_centre_indices(0, 4)
    assert FOUR.choose(None, 8.0).tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("wrong", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.inf, 1.0), (math.nan, 1.0)])
def test_windows_that_are_none(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="positive length and stride"):
        WindowSampling(*wrong, RATE, None)
