"""Stretches of files: what a file cut there would give, without cutting it."""

import numpy as np
import pytest

from tests.media.numbered import numbered_frames, numbers_of, tones
from videollm.errors import MediaStretchError, MediaUnreadableError
from videollm.media.decode_worker import close_server, open_clip, read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
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
