"""decord: the same frames at the same seconds as PyAV, or one clear line; never a wrong frame."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.media.numbered import ALL_FRAMES, everything, numbered_frames, numbers_of, smooth_noise, tones
from videollm.errors import MediaError, MediaUnreadableError, MissingDependencyError
from videollm.media.decode_worker import open_clip, read_clip
from videollm.media.sampling import FrameSampling
from videollm.media.write import write_sound, write_video

OPEN = "log-level=none:pools=none:keyint=12:bframes=4"
CLOSED = OPEN + ":open-gop=0"
READS = [
    ("a.mp4", "h264", {}),
    ("b.mp4", "h264", {"preset": "medium", "key_every": 12}),
    ("a.mov", "h264", {}),
    ("a.mkv", "h264", {"key_every": 10}),
    ("odd.mp4", "h264", {"odd": True}),
    ("closed.mkv", "hevc", {"encoder_options": {"x265-params": CLOSED}}),
    ("h.mp4", "hevc", {}),
    ("a.webm", "vp9", {"key_every": 15}),
    ("m.avi", "mjpeg", {}),
    ("sound.mp4", "h264", {"waveform": tones(2.0)}),
    ("fragments.mp4", "h264", {"container_options": {"movflags": "frag_keyframe+delay_moov"}}),
    ("turned.mp4", "h264", {"rotation_degrees": 180}),
]
REFUSED = [
    ("open.mkv", "hevc", {"encoder_options": {"x265-params": OPEN}}, "before a key frame"),
    ("a.ts", "h264", {}, "reliably"),
    ("b.avi", "h264", {}, "reliably"),
    ("a.gif", "gif", {}, "reliably"),
    ("av1.mkv", "av1", {}, "video"),
    ("oblong.mp4", "h264", {"sample_aspect": 2}, "not square"),
    ("mirror.mp4", "h264", {"mirrored": True}, "mirrored"),
    ("quarter.mp4", "h264", {"rotation_degrees": 90}, "turned by 90"),
    ("odd.webm", "vp9", {"odd": True}, "odd"),
]


def made(tmp_path: Path, name: str, codec: str, options: dict, variable: bool = False) -> Path:
    options = dict(options)
    odd = 3 if options.pop("odd", False) else 0
    size = (96, 128) if codec == "av1" else (48 + odd, 64 + odd)
    if variable:
        gaps = np.random.default_rng(5).integers(2, 30, 60) / 100
        options["seconds"] = np.cumsum(gaps) - gaps[0]
    else:
        options["fps"] = 25
    return write_video(tmp_path / name, numbered_frames(60, *size), codec=codec, **options)


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize(("name", "codec", "options"), READS)
def test_same_frames_at_the_same_seconds(tmp_path: Path, name: str, codec: str, options: dict, variable: bool) -> None:
    if variable and name.endswith("avi"):
        pytest.skip("an avi has a constant rate")
    path = made(tmp_path, name, codec, options, variable)
    for sampling in (ALL_FRAMES, FrameSampling(frames=8), FrameSampling("rate", rate_hz=3)):
        ours = read_clip(path, frames=sampling)
        theirs = read_clip(path, frames=sampling, decoder="decord")
        assert ours.frames is not None and theirs.frames is not None
        np.testing.assert_array_equal(ours.frames.seconds, theirs.frames.seconds)
        np.testing.assert_array_equal(ours.frames.pixels, theirs.frames.pixels)
        assert ours.content_hash == theirs.content_hash and ours.duration_seconds == theirs.duration_seconds
    assert len(numbers_of(read_clip(path, frames=ALL_FRAMES, decoder="decord"))) == 60


def test_sound_is_never_decords(tmp_path: Path) -> None:
    path = made(tmp_path, "a.mp4", "h264", {"waveform": tones(2.0)})
    ours, theirs = everything(path), everything(path, decoder="decord")
    assert ours.waveforms is not None and theirs.waveforms is not None
    np.testing.assert_array_equal(ours.waveforms[0].samples, theirs.waveforms[0].samples)


@pytest.mark.parametrize(("name", "codec", "options", "words"), REFUSED)
def test_what_decord_cannot_read_is_one_line(tmp_path: Path, name: str, codec: str, options: dict, words: str) -> None:
    path = made(tmp_path, name, codec, options)
    assert len(numbers_of(everything(path))) == 60, "PyAV reads it"
    for read in (read_clip, open_clip):
        with pytest.raises(MediaUnreadableError, match=rf"^{name}: decord cannot read this file \(.*{words}") as caught:
            read(path, frames=ALL_FRAMES, decoder="decord")
        assert str(caught.value).endswith('use the decoder "pyav"') and "\n" not in str(caught.value)


def test_edit_lists_late_starts_and_cuts_are_right_or_refused(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.mp4", numbered_frames(20), seconds=0.5 + np.arange(20) / 10)
    whole = made(tmp_path, "whole.mkv", "h264", {"key_every": 10})
    short = tmp_path / "short.mkv"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    agreed = 0
    for path in (late, short):
        ours = everything(path)
        try:
            theirs = everything(path, decoder="decord")
        except MediaUnreadableError as error:
            assert "decord" in str(error)
            continue
        agreed += 1
        assert ours.frames is not None and theirs.frames is not None
        np.testing.assert_array_equal(ours.frames.seconds, theirs.frames.seconds)
        np.testing.assert_array_equal(ours.frames.pixels, theirs.frames.pixels)
    assert agreed >= 1


def test_files_without_pictures_and_still_pictures(tmp_path: Path) -> None:
    from PIL import Image

    sound = write_sound(tmp_path / "a.wav", tones(1.0))
    with pytest.raises(MediaUnreadableError, match=r"decord cannot read this file .*no pictures"):
        everything(sound, decoder="decord")
    Image.fromarray(smooth_noise(1)).save(tmp_path / "a.png")
    assert everything(tmp_path / "a.png", decoder="decord").kind == "image", "decord is for video only"


def test_damaged_files_are_the_same_or_refused(tmp_path: Path) -> None:
    """decord repeats neighbours where it cannot decode; such a frame must never come out as another."""
    body = made(tmp_path, "a.mp4", "h264", {"key_every": 12}).read_bytes()
    path = tmp_path / "damaged.mp4"
    rng = np.random.default_rng(0)
    start, end = body.index(b"mdat") + 4, body.index(b"moov") - 4
    refused = same = 0
    for _ in range(25):
        changed = bytearray(body)
        at = int(rng.integers(start, end - 40))
        changed[at : at + 40] = rng.bytes(40)
        path.write_bytes(changed)
        try:
            theirs = read_clip(path, frames=ALL_FRAMES, decoder="decord")
        except MediaError as error:
            refused += "decord" in str(error)
            continue
        ours = read_clip(path, frames=ALL_FRAMES)
        assert ours.frames is not None and theirs.frames is not None
        np.testing.assert_array_equal(ours.frames.seconds, theirs.frames.seconds)
        same += bool(np.array_equal(ours.frames.pixels, theirs.frames.pixels))
    assert refused + same == 25, f"{refused} refused, {same} the same of 25"


def test_decord_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path, "a.mp4", "h264", {})
    monkeypatch.setitem(sys.modules, "decord", None)  # what a missing package looks like to an import
    with pytest.raises(MissingDependencyError, match="pip install decord"):
        read_clip(path, frames=ALL_FRAMES, decoder="decord")


def test_frames_are_squashed_alike(tmp_path: Path) -> None:
    """The published scaler, by both decoders to the bit; turned and animated pictures are squashed, too."""
    path = write_video(tmp_path / "a.mp4", np.stack([smooth_noise(seed, 90, 160) for seed in range(6)]), fps=25)
    sampling = FrameSampling("uniform", frames=3, squash_px=56)
    own, squashed = read_clip(path, frames=FrameSampling("uniform", frames=3)), read_clip(path, frames=sampling)
    with_decord, in_worker = (read_clip(path, frames=sampling, decoder="decord"), open_clip(path, frames=sampling))
    for clip in (squashed, with_decord, in_worker):
        assert clip.frames is not None and own.frames is not None
        assert clip.frames.pixels.shape == (3, 56, 56, 3) and not clip.notes
        np.testing.assert_array_equal(clip.frames.pixels, squashed.frames.pixels)
        np.testing.assert_array_equal(clip.frames.seconds, own.frames.seconds)
        assert clip.content_hash == squashed.content_hash != own.content_hash
        # Whatever the shape was: rows and columns are means of the picture's own.
        wanted = own.frames.pixels[:, 45, 80].astype(int)
        assert abs(clip.frames.pixels[:, 28, 28] - wanted).max() < 24
    for name, options in (("turned.mp4", {"rotation_degrees": 90}), ("a.gif", {"codec": "gif"})):
        path = write_video(tmp_path / name, numbered_frames(6, 48, 64), fps=25, **options)
        frames = read_clip(path, frames=sampling).frames
        assert frames is not None and frames.pixels.shape == (3, 56, 56, 3)
    with pytest.raises(ValueError, match="squashed to at least 1 pixel, found 0"):
        FrameSampling(squash_px=0)
