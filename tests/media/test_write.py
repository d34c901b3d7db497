"""Writing: whole files or none, exact cuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.media.numbered import everything, lag_of, numbered_frames, numbers_of, tones
from videollm.errors import MediaNotFoundError, MediaUnreadableError
from videollm.media.write import cut_clip, write_sound, write_video


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def breaks() -> Iterator[np.ndarray]:
        yield from numbered_frames(3)
        raise RuntimeError("no more")

    before = tmp_path / "kept.mp4"
    before.write_bytes(b"old")
    for path in (tmp_path / "new.mp4", before):
        with pytest.raises(RuntimeError, match="no more"):
            write_video(path, breaks(), fps=5)
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", [], fps=5)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.mp4"] and before.read_bytes() == b"old"


def test_wrong_arguments(tmp_path: Path) -> None:
    frames = numbered_frames(3)
    with pytest.raises(ValueError, match="fps or seconds"):
        write_video(tmp_path / "a.mp4", frames)
    with pytest.raises(ValueError, match="codec must be"):
        write_video(tmp_path / "a.mp4", frames, fps=5, codec="h263")
    with pytest.raises(ValueError, match="must increase"):
        write_video(tmp_path / "a.mp4", frames, seconds=[0.0, 0.5, 0.5])
    with pytest.raises(ValueError, match="all frames"):
        write_video(tmp_path / "a.mp4", [frames[0], frames[1, :20]], fps=5)
    assert list(tmp_path.iterdir()) == []


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    path = write_video(tmp_path / "a.mp4", numbered_frames(2), fps=5)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["src.mp4", "src.mkv", "src.webm"])
def test_cut_is_exact(tmp_path: Path, name: str) -> None:
    sound = tones(8.0, 48000)
    src = write_video(tmp_path / name, numbered_frames(200), fps=25, waveform=sound, key_every=100)
    clip = everything(cut_clip(src, tmp_path / "cut.mp4", 2.5, 5.0))
    assert clip.frames is not None and clip.waveforms is not None
    # 2.5 s lies in the middle of frame 62, which is therefore on screen from 0, for half its time.
    assert numbers_of(clip) == list(range(62, 125))
    wanted = np.concatenate([[0.0], np.arange(63, 125) / 25 - 2.5])
    np.testing.assert_allclose(clip.frames.seconds, wanted, atol=1e-3)
    assert clip.frames.duration_seconds == pytest.approx(2.5, abs=2e-3)
    found = clip.waveforms[0]
    assert found.start_seconds == 0 and 2.5 <= found.duration_seconds < 2.56
    lag, correlation = lag_of(found.samples[0], sound.samples[0, 120_000:240_000])
    assert abs(lag) <= (50 if name != "src.mp4" else 1) and correlation > 0.95, (lag, correlation)


def test_cut_of_a_sound_and_of_turned_pictures(tmp_path: Path) -> None:
    sound = tones(3.0, 16000, 1)
    clip = everything(cut_clip(write_sound(tmp_path / "a.wav", sound), tmp_path / "b.wav", 1.0, 2.0))
    assert clip.waveforms is not None and clip.waveforms[0].samples.shape == (1, 16000)
    assert np.abs(clip.waveforms[0].samples - sound.samples[:, 16000:32000]).max() < 2 / 2**14
    turned = write_video(tmp_path / "t.mp4", numbered_frames(10), fps=5, rotation_degrees=90, sample_aspect=2)
    cut = everything(cut_clip(turned, tmp_path / "c.mp4", 0.0, 1.0))
    assert cut.frames is not None and cut.frames.pixels.shape == (5, 128, 48, 3)


def test_cuts_that_cannot_be(tmp_path: Path) -> None:
    src = write_video(tmp_path / "a.mp4", numbered_frames(10), fps=5)
    with pytest.raises(ValueError, match="start < end"):
        cut_clip(src, tmp_path / "b.mp4", 1.0, 1.0)
    with pytest.raises(MediaUnreadableError, match=r"ends at 2\.0 s"):
        cut_clip(src, tmp_path / "b.mp4", 3.0, 4.0)
    with pytest.raises(MediaNotFoundError):
        cut_clip(tmp_path / "no.mp4", tmp_path / "b.mp4", 0.0, 1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_long_cut_keeps_every_frame(tmp_path: Path) -> None:
    src = write_video(tmp_path / "a.mp4", numbered_frames(256), fps=30)
    clip = everything(cut_clip(src, tmp_path / "b.mkv", 0.0, 100.0))
    assert numbers_of(clip) == list(range(256))
