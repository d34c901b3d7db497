"""Video: exact frames at exact times, upright, with square pixels, however they are stored and reached."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from tests.media.numbered import ALL_FRAMES, everything, number_of, numbered_frames, numbers_of, smooth_noise, tones
from videollm.errors import MediaLimitError
from videollm.media import video as video_module
from videollm.media.read import probe, read_clip
from videollm.media.sampling import FrameSampling
from videollm.media.source import (
    DEFAULT_LIMITS,
    Limits,
    choose_streams,
    open_source,
    opened_container,
    sniff,
    timeline_origin_seconds,
)
from videollm.media.video import JUMP_PACKETS, plan_runs, read_frames, scan_packets, timetable
from videollm.media.write import write_video

KINDS = [
    ("a.mp4", "h264", 48, 64),
    ("a.mov", "h264", 48, 64),
    ("a.mkv", "h264", 51, 67),
    ("odd.mp4", "h264", 51, 67),
    ("a.ts", "h264", 48, 64),
    ("b.avi", "h264", 48, 64),
    ("h.mp4", "hevc", 48, 64),
    ("odd.mkv", "hevc", 51, 67),
    ("a.webm", "vp9", 48, 64),
    ("odd.webm", "vp9", 51, 67),
    ("av1.mp4", "av1", 96, 128),
    ("av1.mkv", "av1", 96, 128),
    ("a.avi", "mjpeg", 48, 64),
    ("odd.avi", "mjpeg", 51, 67),
    ("lossless.mkv", "ffv1", 51, 67),
    ("a.gif", "gif", 51, 67),
]


@pytest.mark.parametrize(("name", "codec", "height", "width"), KINDS)
def test_every_format_gives_every_frame_at_its_time(
    tmp_path: Path, name: str, codec: str, height: int, width: int
) -> None:
    pixels = numbered_frames(40, height, width)
    path = write_video(tmp_path / name, pixels, fps=25, codec=codec)
    clip = everything(path)
    assert clip.kind == "video" and clip.waveforms is None and clip.notes == ()
    assert clip.frames is not None and clip.frames.pixels.shape == pixels.shape
    assert numbers_of(clip) == list(range(40))
    np.testing.assert_allclose(clip.frames.seconds, np.arange(40) / 25, atol=6e-4)
    assert clip.frames.duration_seconds == pytest.approx(1.6, abs=2e-3)
    error = np.abs(clip.frames.pixels.astype(float) - pixels).mean()
    assert error < 12, f"{codec} colours are off by {error:.1f}"


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.webm", "v.gif"])
def test_variable_rate_times_are_exact(tmp_path: Path, name: str) -> None:
    gaps = np.random.default_rng(3).integers(2, 40, 60) / 100
    seconds = np.concatenate([[0.0], np.cumsum(gaps)])[:60]
    path = write_video(tmp_path / name, numbered_frames(60), seconds=seconds, end_seconds=seconds[-1] + 0.5)
    clip = everything(path)
    assert clip.frames is not None and numbers_of(clip) == list(range(60))
    np.testing.assert_allclose(clip.frames.seconds, seconds, atol=1e-6)
    # By rate: the frame on screen at each second, with its own time.
    some = read_clip(path, frames=FrameSampling("rate", rate_hz=2, max_frames=100))
    assert some.frames is not None
    wanted = np.unique([np.flatnonzero(seconds <= k / 2 + 1e-6)[-1] for k in range(int(2 * clip.duration_seconds))])
    assert set(wanted) <= set(numbers_of(some)) and len(some.frames) - len(wanted) <= 1
    np.testing.assert_allclose(some.frames.seconds, seconds[numbers_of(some)], atol=1e-6)


def test_last_frame_stays_on_screen_as_long_as_the_file_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(3), seconds=[0.0, 0.1, 0.2], end_seconds=3.0)
    clip = read_clip(path, frames=FrameSampling("rate", rate_hz=1))
    assert clip.frames is not None and clip.frames.duration_seconds == pytest.approx(3.0)
    assert numbers_of(clip) == [0, 2]


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv"])
def test_a_late_first_frame_keeps_its_time(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, numbered_frames(10), seconds=0.5 + np.arange(10) / 10, waveform=tones(2.0))
    clip = everything(path)
    assert clip.frames is not None and clip.waveforms is not None
    np.testing.assert_allclose(clip.frames.seconds, 0.5 + np.arange(10) / 10, atol=1e-3)
    assert clip.waveforms[0].start_seconds == pytest.approx(0.0, abs=1e-3)


def _write_by_hand(path: Path, pixels: np.ndarray, pts: list[int], codec: str = "libx264", **options: str) -> Path:
    """An mp4 with chosen presentation times, negative ones included (the muxer then writes an edit list)."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream(codec, rate=10, options={"preset": "veryfast", **options})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for each, at in zip(pixels, pts, strict=True):
            frame = VideoFrame.from_ndarray(each, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_edit_list_hides_the_frames_before_it(tmp_path: Path) -> None:
    path = _write_by_hand(tmp_path / "edit.mp4", numbered_frames(20), list(range(-7, 13)))
    with av.open(str(path)) as container:
        hidden = sum(p.is_discard for p in container.demux(video=0) if p.size)
    assert hidden == 7, "the file is not the one this test is about"
    clip = everything(path)
    assert clip.frames is not None and numbers_of(clip) == list(range(7, 20))
    np.testing.assert_allclose(clip.frames.seconds, np.arange(13) / 10, atol=1e-6)


def test_one_frame(tmp_path: Path) -> None:
    clip = everything(write_video(tmp_path / "one.mp4", numbered_frames(1, first=5), fps=25))
    assert clip.kind == "video" and numbers_of(clip) == [5] and clip.frames is not None
    assert clip.frames.seconds.tolist() == [0.0] and clip.frames.duration_seconds == pytest.approx(0.04)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["r.mp4", "r.mkv"])
def test_pictures_are_upright(tmp_path: Path, name: str, degrees: int, mirrored: bool) -> None:
    stored = smooth_noise(1)
    path = write_video(tmp_path / name, stored[None], fps=5, quality=4, rotation_degrees=degrees, mirrored=mirrored)
    upright = np.rot90(stored[:, ::-1] if mirrored else stored, -degrees // 90)
    clip = everything(path)
    assert clip.frames is not None and clip.frames.pixels.shape[1:] == upright.shape
    assert np.abs(clip.frames.pixels[0].astype(float) - upright).mean() < 4
    info = probe(path)
    assert (info.rotation_degrees, info.mirrored) == (degrees, mirrored)
    assert (info.height, info.width) == upright.shape[:2]


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(4, 3), 85), (Fraction(8, 9), 57), (Fraction(2), 128)])
@pytest.mark.parametrize("name", ["s.mp4", "s.mkv"])
def test_pixels_are_square(tmp_path: Path, name: str, aspect: Fraction, width: int) -> None:
    path = write_video(tmp_path / name, numbered_frames(4), fps=5, sample_aspect=aspect)
    clip = everything(path)
    assert clip.frames is not None and clip.frames.pixels.shape == (4, 48, width, 3)
    assert numbers_of(clip) == [0, 1, 2, 3]
    assert probe(path).width == width


def test_turned_pictures_with_oblong_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "t.mp4", numbered_frames(2), fps=5, sample_aspect=2, rotation_degrees=90)
    clip = everything(path)
    assert clip.frames is not None and clip.frames.pixels.shape == (2, 128, 48, 3)


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (1, True), (5, False), (5, True)])
def test_colours_follow_the_tags(tmp_path: Path, matrix: int, full: bool) -> None:
    patches = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 200, 10], [16, 16, 16], [235, 235, 235]], np.uint8)
    picture = np.repeat(np.repeat(patches[None], 32, 0), 32, 1)
    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=5, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 32, 192, "yuv444p"
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if full else 1
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=2 if full else 1)
        frame.colorspace, frame.color_range, frame.pts = matrix, 2 if full else 1, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = everything(path)
    assert clip.frames is not None
    found = clip.frames.pixels[0][16, 16::32].astype(int)
    assert np.abs(found - patches).max() <= 4, found


def _parts(path: Path, sampling: FrameSampling, plan: str, **options: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    with open_source(path) as source:
        kind = sniff(source.head())
        assert kind is not None
        with opened_container(source, kind) as container:
            video = choose_streams(source, container).video
            assert video is not None
            origin = timeline_origin_seconds(container)
            table = timetable(source, kind, video, scan_packets(source, container, [video])[video.index], origin)
        frames, notes = read_frames(
            source,
            kind,
            table,
            sampling,
            aspect=1.0,
            origin_seconds=origin,
            plan=plan,
            **options,  # type: ignore[arg-type]
        )
        assert notes == []
    return [number_of(p) for p in frames.pixels], frames.seconds, frames.pixels


LONG = [
    ("closed.mp4", "h264", {"preset": "medium"}, {"g": "12"}),
    ("open.mp4", "h264", {"preset": "medium"}, {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0"}),
    (
        "open.mkv",
        "hevc",
        {},
        {"x265-params": "log-level=none:pools=none:keyint=12:open-gop=1:bframes=4"},
    ),
    ("g.webm", "vp9", {"key_every": 15}, {}),
    ("g.ts", "h264", {"key_every": 15}, {}),
    ("av1.mkv", "av1", {"key_every": 15}, {}),
    ("v.avi", "mjpeg", {}, {}),
]


@pytest.mark.parametrize(("name", "codec", "options", "encoder"), LONG)
def test_jumping_gives_the_same_frames_as_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, options: dict, encoder: dict
) -> None:
    size = (96, 128) if codec == "av1" else (48, 64)
    path = write_video(
        tmp_path / name, numbered_frames(120, *size), fps=25, codec=codec, encoder_options=encoder, **options
    )
    if name.startswith("open"):
        with av.open(str(path)) as container:
            packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]
        keys = [i for i, (_, key) in enumerate(packets) if key and i]
        leading = [i for i in keys if any(pts < packets[i][0] for pts, _ in packets[i:])]
        assert leading, "no open group: the file is not the one this test is about"
    for sampling in (FrameSampling(frames=7), FrameSampling(frames=23), ALL_FRAMES, FrameSampling("rate", rate_hz=3)):
        straight = _parts(path, sampling, "one pass")
        assert len(straight[0]) > 3
        monkeypatch.setattr(video_module, "_frames_in_one_pass", _no_second_try)
        np.testing.assert_allclose(straight[1], np.array(straight[0]) / 25, atol=6e-4)
        for other in (
            _parts(path, sampling, "jump"),
            _parts(path, sampling, "auto"),
            _parts(path, sampling, "auto", jump_packets=1, seek_packets=1),
            _parts(path, sampling, "auto", jump_packets=1, seek_packets=10**9),
        ):
            assert other[0] == straight[0]
            np.testing.assert_array_equal(other[1], straight[1])
            np.testing.assert_array_equal(other[2], straight[2])
        monkeypatch.undo()


def _no_second_try(*_: object) -> None:
    raise AssertionError("a jump did not find its frame")


def test_few_frames_of_a_long_file_decode_little(tmp_path: Path) -> None:
    path = write_video(tmp_path / "l.mp4", numbered_frames(250), fps=25, key_every=25)
    with open_source(path) as source, opened_container(source, "mov") as container:
        video = choose_streams(source, container).video
        assert video is not None
        table = timetable(source, "mov", video, scan_packets(source, container, [video])[video.index], 0.0)
    sparse = plan_runs(table, np.array([0, 60, 130, 240]))
    assert [run.first for run in sparse] == [0, 50, 125, 225]
    assert sum(run.last - run.first + 1 for run in sparse) < 50
    dense = plan_runs(table, np.arange(0, 250, 2))
    assert len(dense) == 1 and dense[0].first == 0, f"gaps under {JUMP_PACKETS} packets are decoded through"


def test_cover_art_is_not_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    sound = tones(1.0)
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=44100, layout="stereo")
        art = out.add_stream("mjpeg", rate=1)
        art.height, art.width, art.pix_fmt = 48, 64, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        picture = VideoFrame.from_ndarray(smooth_noise(0), format="rgb24").reformat(format="yuvj420p")
        picture.pts = 0
        out.mux(art.encode(picture))
        frame = av.AudioFrame.from_ndarray(sound.samples, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = everything(path)
    assert clip.kind == "audio" and clip.frames is None and clip.waveforms is not None
    info = probe(path)
    assert info.kind == "audio" and info.video_codec is None and info.audio_codec == "aac"


def test_large_pictures_are_read_smaller_and_the_notes_say_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "big.mp4", numbered_frames(16, 96, 128), fps=10)
    clip = everything(path, limits=Limits(pixel_bytes=16 * 48 * 64 * 3))
    assert clip.frames is not None and clip.frames.pixels.shape == (16, 48, 64, 3)
    assert numbers_of(clip) == list(range(16))
    assert clip.notes == ("the pictures of 128x96 were read at 64 pixels on the longer side",)


def test_limits_on_pixels_frames_seconds_and_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), fps=10)
    for limits, words in (
        (Limits(frame_pixels=48 * 64 - 1), "64x48"),
        (Limits(frames=19), "more than 19"),
        (Limits(duration_seconds=1.9), "lasts 2"),
        (Limits(frame_rate_hz=9.0), "pictures a second"),
        (Limits(file_bytes=100), "100 bytes"),
    ):
        with pytest.raises(MediaLimitError, match=words) as caught:
            everything(path, limits=limits)
        assert "a.mp4" in str(caught.value) and "\n" not in str(caught.value)
    assert everything(path, limits=DEFAULT_LIMITS).notes == ()


def test_content_hash_is_of_the_bytes_and_of_what_was_read(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.mp4", numbered_frames(20), fps=10)
    same = tmp_path / "other name.bin"
    same.write_bytes(first.read_bytes())
    other = write_video(tmp_path / "b.mp4", numbered_frames(20, first=1), fps=10)
    assert everything(first).content_hash == everything(same).content_hash
    assert everything(first).content_hash != everything(other).content_hash
    assert everything(first).content_hash != everything(first, frames=FrameSampling(frames=2)).content_hash
