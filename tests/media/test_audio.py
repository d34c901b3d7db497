"""Sound: own rate and channels, real times, and pieces of a long one that equal the whole."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import wave as wave_module
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.numbered import SOUND, everything, lag_of, numbered_frames, tones
from videollm.clips import Waveform
from videollm.errors import MediaLimitError
from videollm.media.audio import WHOLE_SOUND_SECONDS
from videollm.media.read import read_clip
from videollm.media.sampling import SoundSampling
from videollm.media.source import Limits
from videollm.media.write import write_sound, write_video


def heard(path: Path, sampling: SoundSampling = SOUND, **options: object) -> tuple[Waveform, ...]:
    clip = everything(path, sound=sampling, **options)
    assert clip.waveforms is not None
    for start, end in clip.windows_seconds:
        assert any(
            w.start_seconds - 1e-6 <= start < end <= w.start_seconds + w.duration_seconds + 1e-6 for w in clip.waveforms
        ), "every window lies inside a piece"
    return clip.waveforms


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a", "mp3"])
def test_rate_channels_and_samples(tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    if suffix == "mp3" and channels > 2:
        pytest.skip("mp3 has two channels at most")
    wanted = tones(1.5, rate, channels)
    (found,) = heard(write_sound(tmp_path / f"a.{suffix}", wanted))
    assert (found.rate_hz, found.samples.shape[0]) == (rate, channels)
    assert found.samples.dtype == np.float32
    if suffix in ("wav", "flac"):
        assert found.start_seconds == 0 and found.samples.shape == wanted.samples.shape
        assert np.abs(found.samples - wanted.samples).max() < 2 / 2**15
        return
    assert 1.5 - 1e-9 <= found.duration_seconds < 1.7
    # The delay of the encoder, told by a tag in mp3 and by an edit list in m4a, is not part of the sound.
    lag, correlation = lag_of(found.samples[0], wanted.samples[0])
    lag += round(found.start_seconds * rate)
    assert abs(lag) <= 1 and correlation > 0.97, (lag, correlation)


@pytest.mark.parametrize("name", ["a.ogg", "a.webm"])
def test_opus(tmp_path: Path, name: str) -> None:
    wanted = tones(2.0, 48000)
    path = tmp_path / name
    if name == "a.ogg":
        write_sound(path, wanted)
    else:
        write_video(path, numbered_frames(20), fps=10, waveform=wanted)
    (found,) = heard(path)
    assert (found.rate_hz, found.samples.shape[0]) == (48000, 2)
    lag, correlation = lag_of(found.samples[0], wanted.samples[0])
    assert abs(lag / 48000 + found.start_seconds) < 2e-3 and correlation > 0.97


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw"]
)
def test_sample_formats_share_one_scale(tmp_path: Path, codec: str) -> None:
    wanted = tones(0.5, 16000, 1)
    (found,) = heard(write_sound(tmp_path / "a.wav", wanted, codec=codec))
    step = {"pcm_u8": 2 / 2**8, "pcm_mulaw": 0.02, "pcm_s16le": 2 / 2**15}.get(codec, 1e-6)
    assert found.samples.shape == wanted.samples.shape
    assert np.abs(found.samples - wanted.samples).max() <= step


def test_full_scale_reaches_minus_one(tmp_path: Path) -> None:
    path = tmp_path / "edge.wav"
    with wave_module.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.array([-32768, 32767, 0] * 100, "<i2").tobytes())
    (found,) = heard(path)
    assert found.samples[0, :3].tolist() == [-1.0, 32767 / 32768, 0.0]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_in_a_video_starts_when_it_starts(tmp_path: Path, name: str) -> None:
    wanted = tones(2.0, start_seconds=0.7)
    (found,) = heard(write_video(tmp_path / name, numbered_frames(30), fps=10, waveform=wanted))
    lag, correlation = lag_of(found.samples[0], wanted.samples[0])
    assert correlation > 0.97
    assert found.start_seconds + lag / 44100 == pytest.approx(0.7, abs=2e-3)


def test_no_sound_is_none(tmp_path: Path) -> None:
    clip = everything(write_video(tmp_path / "a.mp4", numbered_frames(5), fps=5))
    assert clip.waveforms is None and clip.windows_seconds == () and clip.notes == ()


def test_sound_not_asked_for_is_not_read(tmp_path: Path) -> None:
    clip = everything(write_video(tmp_path / "a.mp4", numbered_frames(5), fps=5, waveform=tones(1.0)), sound=None)
    assert clip.waveforms is None and clip.frames is not None


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a", "mp3", "ogg", "mp4", "mkv", "avi"])
def test_pieces_of_a_long_sound_equal_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    wanted = tones(80.0, 16000, 1)
    path = tmp_path / f"long.{suffix}"
    if suffix in ("mp4", "mkv", "avi"):
        write_video(path, numbered_frames(80), fps=1, waveform=wanted)
    else:
        write_sound(path, wanted)
    sampling = SoundSampling("spread", segments=4, length_seconds=1.0)
    pieces = heard(path, sampling)
    assert len(pieces) == 4 and sum(p.duration_seconds for p in pieces) < 8
    monkeypatch.setattr("videollm.media.audio.WHOLE_SOUND_SECONDS", 1e9)
    (whole,) = heard(path, sampling)
    for piece in pieces:
        at = round((piece.start_seconds - whole.start_seconds) * whole.rate_hz)
        same = whole.samples[:, at : at + piece.samples.shape[1]]
        assert piece.start_seconds == pytest.approx(whole.start_seconds + at / whole.rate_hz, abs=1e-3)
        lag, correlation = lag_of(piece.samples[0], same[0], most=200)
        # Matroska's clock has milliseconds, which is what a piece of it may be off by.
        assert abs(lag) <= (16 if suffix == "mkv" else 0) and correlation > 0.9999, (lag, correlation)


def test_published_windows_of_a_long_sound(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "long.wav", tones(90.0, 8000, 1))
    clip = everything(path)
    assert [round(s, 6) for s, _ in clip.windows_seconds] == [i * 88 / 8 for i in range(8)]
    assert all(e - s == pytest.approx(2.0) for s, e in clip.windows_seconds)


def _tone_with_times(path: Path, times: list[float], codec: str = "pcm_s16le") -> Path:
    """Quarter seconds of a tone at chosen times."""
    block = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 16000)).astype(np.float32)[None]
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=16000, layout="mono")
        for at in times:
            frame = av.AudioFrame.from_ndarray((block * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(at * 16000), Fraction(1, 16000)
            for packet in stream.encode(frame):
                packet.pts = packet.dts = round(at * 16000)
                packet.time_base = Fraction(1, 16000)
                out.mux(packet)
    return path


def test_a_hole_in_the_sound_is_silence_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    path = _tone_with_times(tmp_path / "hole.mkv", [0.0, 0.25, 1.0, 1.25])
    (found,) = heard(path)
    loud = np.abs(found.samples[0]).reshape(-1, 4000).max(1) > 0.1
    assert loud.tolist() == [True, True, False, False, True, True]


def test_small_jitter_of_the_clock_changes_nothing(tmp_path: Path) -> None:
    (found,) = heard(_tone_with_times(tmp_path / "jitter.mkv", [0.0, 0.251, 0.499, 0.752]))
    assert found.samples.shape == (1, 16000)


def test_overlapping_sound_is_cut(tmp_path: Path) -> None:
    (found,) = heard(_tone_with_times(tmp_path / "over.mkv", [0.0, 0.25, 0.375]))
    assert found.samples.shape == (1, 10000)


def test_sound_limits(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tones(2.0, 16000, 2))
    for limits, words in (
        (Limits(channels=1), "2 channels"),
        (Limits(rate_hz=8000), "16000 Hz"),
        (Limits(sound_bytes=1000), "sound to be heard"),
        (Limits(duration_seconds=1.0), "lasts 2.0 s"),
    ):
        with pytest.raises(MediaLimitError, match=words):
            heard(path, limits=limits)


def test_an_hour_of_silence_is_quick_and_small(tmp_path: Path) -> None:
    assert WHOLE_SOUND_SECONDS < 3600
    path = tmp_path / "hour.wav"
    with wave_module.open(str(path), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(44100)
        second = bytes(44100 * 4)
        for _ in range(3600):
            out.writeframesraw(second)
    program = (
        "import sys, resource; from videollm.media.read import read_clip; "
        "from videollm.media.sampling import SoundSampling; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "clip = read_clip(sys.argv[1], sound=SoundSampling('contiguous', 32, 0.5)); "
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "assert clip.duration_seconds == 3600 and len(clip.windows_seconds) == 32, clip; "
        "assert all(not w.samples.any() for w in clip.waveforms); print(after - before)"
    )
    root = Path(__file__).resolve().parents[2]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) < 150 * 1024, "KB more at the peak than before"
    assert time.monotonic() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    path.unlink()


def test_reading_only_sound_of_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), fps=10, waveform=tones(2.0))
    clip = read_clip(path, sound=SoundSampling("contiguous", 32, 0.5))
    assert clip.kind == "video" and clip.frames is None and len(clip.windows_seconds) == 4
