"""Stretches of files: what a file cut there would give, without cutting it."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.media.numbered import numbered_frames, numbers_of, tones
from videollm.clips import Waveform
from videollm.errors import MediaStretchError, MediaUnreadableError
from videollm.media import decode_worker
from videollm.media import read as reading
from videollm.media.decode_worker import close_server, open_clip, read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import open_source
from videollm.media.write import cut_clip, write_sound, write_video

EVERY = FrameSampling("rate", rate_hz=25, max_frames=1000)
SOUND = SoundSampling("contiguous", 64, 0.5)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    yield write_video(path, numbered_frames(75), fps=25, waveform=tones(3.0), key_every=10)
    close_server()


def test_the_stretch_of_a_film(film):
    clip = open_clip(film, frames=EVERY, sound=SOUND, start_seconds=1.02, end_seconds=2.0)
    assert clip.frames is not None and clip.waveforms is not None
    # On screen at 1.02 s is frame 25, which started at 1.0 s; frame 50 starts at the end and is not shown.
    assert numbers_of(clip) == list(range(25, 50))
    np.testing.assert_allclose(clip.frames.seconds, [0.0, *(np.arange(26, 50) / 25 - 1.02)], atol=1e-6)
    assert clip.duration_seconds == pytest.approx(0.98) and clip.frames.duration_seconds == pytest.approx(0.98)
    np.testing.assert_allclose(clip.windows_seconds, [(0.0, 0.5), (0.5, 0.98)], atol=1e-4)
    whole = read_clip(film, frames=EVERY, sound=SOUND)
    assert whole.waveforms is not None
    wave, all_of_it = clip.waveforms[0], whole.waveforms[0]
    first = round((wave.start_seconds + 1.02 - all_of_it.start_seconds) * wave.rate_hz)
    # Decoding began a second before, not at the start: aac is then the same but for the last bits.
    inside = all_of_it.samples[:, first : first + wave.samples.shape[1]]
    np.testing.assert_allclose(wave.samples, inside, atol=2e-5)
    assert wave.duration_seconds == pytest.approx(0.98, abs=1e-3) and abs(wave.start_seconds) < 1e-3
    here = read_clip(film, frames=EVERY, sound=SOUND, start_seconds=1.02, end_seconds=2.0)
    assert here.content_hash == clip.content_hash != whole.content_hash
    np.testing.assert_array_equal(here.frames.pixels, clip.frames.pixels)


def test_a_stretch_is_what_a_cut_file_gives(film, tmp_path):
    cut_clip(film, tmp_path / "cut.mp4", 0.8, 2.4)
    cut = read_clip(tmp_path / "cut.mp4", frames=FrameSampling("uniform", 8), sound=SOUND)
    clip = read_clip(film, frames=FrameSampling("uniform", 8), sound=SOUND, start_seconds=0.8, end_seconds=2.4)
    assert numbers_of(clip) == numbers_of(cut)
    np.testing.assert_allclose(clip.frames.seconds, cut.frames.seconds, atol=2e-3)
    assert clip.duration_seconds == pytest.approx(cut.duration_seconds, abs=0.05)
    np.testing.assert_allclose(clip.windows_seconds[:3], cut.windows_seconds[:3], atol=0.03)


def test_open_ends(film):
    late = read_clip(film, frames=EVERY, sound=SOUND, start_seconds=2.6)
    assert numbers_of(late) == list(range(65, 75)) and late.duration_seconds == pytest.approx(0.4, abs=0.03)
    early = read_clip(film, frames=EVERY, sound=SOUND, end_seconds=0.1)
    assert numbers_of(early) == [0, 1, 2]
    beyond = read_clip(film, frames=EVERY, sound=SOUND, start_seconds=2.6, end_seconds=60.0)
    assert numbers_of(beyond) == numbers_of(late) and beyond.duration_seconds == late.duration_seconds


def test_a_long_sound_is_read_only_there(tmp_path):
    path = write_sound(tmp_path / "a.wav", tones(90.0))
    clip = read_clip(path, sound=SOUND, start_seconds=80.0, end_seconds=82.0)
    whole = read_clip(path, sound=SoundSampling("spread", 180, 0.5))
    assert sum(wave.duration_seconds for wave in clip.waveforms) == pytest.approx(2.0, abs=0.01)
    assert len(clip.windows_seconds) == 4 and clip.windows_seconds[0][0] == pytest.approx(0.0, abs=1e-3)
    wave = clip.waveforms[0]
    piece = max(whole.waveforms, key=lambda one: one.duration_seconds)
    first = round((80.0 + wave.start_seconds - piece.start_seconds) * wave.rate_hz)
    np.testing.assert_allclose(wave.samples, piece.samples[:, first : first + wave.samples.shape[1]], atol=1e-6)


def test_where_there_is_nothing(film, tmp_path):
    for read in (open_clip, read_clip):
        with pytest.raises(MediaStretchError, match=r"film\.mp4: the file lasts 3\.0 s, but what is asked .* 5\.0 s"):
            read(film, frames=EVERY, sound=SOUND, start_seconds=5.0, end_seconds=6.0)
    with pytest.raises(ValueError, match="a stretch starts at 0 or later"):
        read_clip(film, frames=EVERY, start_seconds=2.0, end_seconds=1.0)
    with pytest.raises(MediaUnreadableError, match="decord reads whole files only"):
        read_clip(film, frames=EVERY, decoder="decord", start_seconds=1.0)


def test_a_picture_has_no_seconds(tmp_path):
    from PIL import Image

    Image.fromarray(numbered_frames(1)[0]).save(tmp_path / "a.png")
    clip = read_clip(tmp_path / "a.png", frames=EVERY, start_seconds=3.0, end_seconds=4.0)
    assert clip.kind == "image" and clip.content_hash == read_clip(tmp_path / "a.png", frames=EVERY).content_hash


# -- a file that was looked through before


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi", "sound.wav"])
def test_a_stretch_with_a_survey_is_the_same(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    tone = Waveform(np.sin(np.arange(6 * 8000) * 0.3).astype(np.float32)[None] * 0.2, 8000)
    path = tmp_path / name
    if name == "sound.wav":
        write_sound(path, tone)
    else:
        pixels = np.kron(rng.integers(0, 256, (60, 6, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
        write_video(path, pixels, fps=10, waveform=None if name == "film.avi" else tone, key_every=12)
    survey = decode_worker.survey_file(path)
    assert survey.frames == (0 if name == "sound.wav" else 60) and survey.contents.end_seconds == pytest.approx(
        6, abs=0.1
    )
    sampling = {"frames": FrameSampling("rate", rate_hz=4.0), "sound": SoundSampling("contiguous", 8, 0.5)}
    for start, end in ((0.0, 1.0), (2.05, 4.0), (5.0, 9.0)):
        plain, known = (
            decode_worker.open_clip(path, start_seconds=start, end_seconds=end, survey=one, **sampling)
            for one in (None, survey)
        )
        assert known.content_hash == plain.content_hash and known.duration_seconds == plain.duration_seconds
        if plain.frames is not None:
            assert known.frames is not None and plain.frames.of_frames == known.frames.of_frames
            np.testing.assert_array_equal(known.frames.pixels, plain.frames.pixels)
            np.testing.assert_array_equal(known.frames.seconds, plain.frames.seconds)
        for ours, theirs in zip(known.waveforms or (), plain.waveforms or (), strict=True):
            np.testing.assert_array_equal(ours.samples, theirs.samples)


@pytest.mark.parametrize("start, end, openings", [(0.4, 1.4, 2), (1.2, 2.0, 1), (2.3, 3.0, 1)])
def test_pictures_and_sound_of_one_opening(film, monkeypatch, start: float, end: float, openings: int) -> None:
    """The sound is as if read alone; near the beginning, where nobody seeks, the file is opened again."""
    survey = decode_worker.survey_file(film)
    opened = []
    really = av.open
    monkeypatch.setattr(av, "open", lambda *args, **more: opened.append(1) or really(*args, **more))
    reads = []
    for frames in (EVERY, None):
        opened.clear()
        with open_source(film) as source:
            clip = reading.clip_of(
                source, frames=frames, sound=SOUND, decoder="pyav", stretch=(start, end), survey=survey
            )
        reads.append((clip, len(opened)))
    (both, times), (alone, _) = reads
    assert times == openings and both.frames is not None and both.waveforms and alone.waveforms
    assert numbers_of(both) == list(range(round(start * 25), round(end * 25)))
    np.testing.assert_array_equal(both.waveforms[0].samples, alone.waveforms[0].samples)


def test_a_survey_saves_the_look_and_says_nothing_of_a_changed_file(tmp_path: Path, monkeypatch) -> None:
    first = write_video(tmp_path / "a.mp4", np.zeros((20, 32, 32, 3), np.uint8), fps=10)
    survey = decode_worker.survey_file(first)
    with open_source(first) as source, monkeypatch.context() as without:
        without.setattr(reading, "look_at", None)  # would fail
        reading.clip_of(source, frames=FrameSampling(), sound=None, decoder="pyav", stretch=(1.0, 2.0), survey=survey)
    write_video(first, np.full((40, 48, 48, 3), 200, np.uint8), fps=10)
    clip = decode_worker.open_clip(first, frames=FrameSampling(), start_seconds=3.0, end_seconds=4.0, survey=survey)
    assert clip.frames is not None and clip.frames.pixels.shape[1:3] == (48, 48) and clip.frames.of_frames == 10


def test_what_is_no_survey(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(MediaUnreadableError, match="a picture has no stretches"):
        decode_worker.survey_file(tmp_path / "a.png")
    path = write_video(tmp_path / "a.mp4", np.zeros((20, 32, 32, 3), np.uint8), fps=10)
    told, arrays = decode_worker.survey_file(path).to_plain()
    assert reading.Survey.from_plain(told, arrays).frames == 20
    for wrong in (
        arrays[:-2],
        [arrays[0][:5], *arrays[1:]],
        [*arrays[:-1], arrays[-1] + 1000],
        [arrays[0][:0], *arrays[1:]],
    ):
        with pytest.raises(ValueError):
            reading.Survey.from_plain(told, wrong)
