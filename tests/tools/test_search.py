"""Search by examples and by long descriptions, and what is made of what was found."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from tests.models.imagebind.small_imagebind import imagebind_folder
from tests.tools.small_lavila import dual_encoder_folder
from videollm.clips import Waveform
from videollm.data.sounds import synthesise
from videollm.data.world import SoundEvent
from videollm.data.world_files import test_scene as kept_scene
from videollm.data.world_files import write_scene
from videollm.data.world_sounds import COUNTED, Statement, wording
from videollm.errors import ConfigError, MediaError, MomentIndexError
from videollm.media.decode_worker import close_server, inspect_clip, open_clip
from videollm.media.write import write_sound
from videollm.moments.embed import SightEncoder, load_sight_encoder
from videollm.moments.moment import Found, Moment, Video
from videollm.moments.sound import SoundEncoder, load_sound_encoder
from videollm.moments.store import MomentStore
from videollm.tools.search import cut, export, in_order, search, search_paragraph, vectors_like

SECONDS = 2.0


@pytest.fixture(scope="module", autouse=True)
def no_server_left() -> Iterator[None]:
    yield
    close_server()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SightEncoder:
    return load_sight_encoder(dual_encoder_folder(tmp_path_factory.mktemp("sight")), "cpu")


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> SoundEncoder:
    return load_sound_encoder(imagebind_folder(tmp_path_factory.mktemp("ear")), "cpu")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three films of two seconds, each with another thing and another sound."""
    folder = tmp_path_factory.mktemp("films")
    made = []
    for number, kind in enumerate(("hum", "noise", "music")):
        scene = replace(
            kept_scene("one", "seen", number), width_px=64, height_px=64, frame_rate=4.0, duration_seconds=SECONDS,
            sounds=(SoundEvent(kind, 0.0, SECONDS, 1, 0.5, 1),), has_sound_track=True, gain_db=-12.0, rate_hz=16000,
        )  # fmt: skip
        made.append(folder / f"{number}.mp4")
        write_scene(scene, made[-1])
        samples = synthesise(scene, 16000, 1)
        assert samples is not None
        write_sound(folder / f"{number}.wav", Waveform(samples, 16000))
    return made


@pytest.fixture(scope="module")
def store(films: list[Path], encoder: SightEncoder, ear: SoundEncoder, tmp_path_factory) -> MomentStore:
    made = MomentStore.create(
        tmp_path_factory.mktemp("index") / "index",
        {"seen": encoder.width, "heard": ear.width},
        {"seen": encoder.name, "heard": ear.name},
    )
    for number, film in enumerate(films):
        clip = open_clip(film, frames=encoder.frames, sound=ear.sound)
        vectors = {"seen": encoder.clips([clip])[0], "heard": ear.clips([clip])[0]}
        told = Moment(0.0, SECONDS, f"thing number {number}", "I hear it.", vectors)  # type: ignore[arg-type]
        made.put(Video(str(film.resolve()), f"content {number}", SECONDS, 1, "test"), [told])
    return made


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_example_finds_its_like(store, films, encoder, ear, number: int) -> None:
    film = films[number]
    by_clip = search(store, like=film, encoder=encoder, ear=ear)
    assert by_clip[0].path == str(film.resolve()) and by_clip[0].why == {"seen": 1, "heard": 1}
    by_sound = search(store, like=film.with_suffix(".wav"), encoder=encoder, ear=ear)
    assert by_sound[0].path == str(film.resolve()) and by_sound[0].why == {"heard": 1}


def test_words_beside_an_example_say_what_it_does_not_show(store, films, encoder, ear) -> None:
    hits = search(store, "thing", like=films[1].with_suffix(".wav"), encoder=encoder, ear=ear)
    assert set(hits[0].why) == {"seen", "heard", "narrated"}
    # The index tells of a "thing" among what is seen, and never of a "tune".
    assert set(search(store, "thing", encoder=encoder, ear=ear, text=False)[0].why) == {"seen"}
    assert set(search(store, "thing", heard="a tune", encoder=encoder, ear=ear)[0].why) == {"seen", "heard", "narrated"}
    assert set(search(store, "hear", encoder=encoder, ear=ear)[0].why) == {"heard", "heard in words"}


def test_what_is_heard_is_not_looked_for_in_what_is_seen(store) -> None:
    assert not search(store, "thing", heard="nowhere")[0].why.keys() - {"narrated"}
    assert set(search(store, "", heard="hear")[0].why) == {"heard in words"}


def test_sounds_named_in_sentences_of_a_new_form(tmp_path: Path) -> None:
    """Of windows with two sounds or one, those of both are found; the sentence as a whole is nearer to others."""
    ear = load_sound_encoder("tiny_imagebind", "cpu")
    kinds = ("hum", "noise", "rising tone", "falling tone", "music", "speech", "beeps", "clicks")
    pairs = list(combinations(kinds, 2))
    store = MomentStore.create(tmp_path / "index", {"heard": ear.width}, {"heard": ear.name})
    for heard in [*pairs, *((kind,) for kind in kinds)]:
        sounds = tuple(SoundEvent(kind, 2.0 * n, 2.0 * n + 2, 3, 0.5, 1) for n, kind in enumerate(heard))
        scene = replace(kept_scene("one", "seen", 0), duration_seconds=4.0, sounds=sounds, has_sound_track=True)
        samples = synthesise(scene, 16000, 1)
        assert samples is not None
        write_sound(tmp_path / "one.wav", Waveform(samples, 16000))
        vector = ear.clips([open_clip(tmp_path / "one.wav", sound=ear.sound)])[0]
        told = Moment(0.0, 4.0, "", "", {"heard": vector})  # type: ignore[dict-item]
        store.put(Video(" ".join(heard), " ".join(heard), 4.0, 1, "test"), [told])
    rng = np.random.default_rng(0)
    by_phrases = as_a_whole = 0
    for first, second in pairs * 2:
        said = Statement(tuple((kind, 3 if kind in COUNTED else None) for kind in (first, second)), ordered=True)
        words = wording(said, rng, held_out=True)
        by_phrases += search(store, heard=words, ear=ear, text=False)[0].path == f"{first} {second}"
        as_a_whole += store.search(vectors={"heard": ear.words(words)})[0].path == f"{first} {second}"
    assert by_phrases >= 53 and as_a_whole <= 50, (by_phrases, as_a_whole)


def test_an_example_that_cannot_be_compared(store, films, encoder, ear, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.wav: it needs an ear \(--ear\)"):
        vectors_like(films[0].with_suffix(".wav"), encoder, None)
    with pytest.raises(MediaError):
        search(store, like=tmp_path / "none.mp4", encoder=encoder)
    other = load_sound_encoder(imagebind_folder(tmp_path, seed=3), "cpu")
    with pytest.raises(MomentIndexError, match="search with the encoder that made the index"):
        search(store, "a hum", ear=other)


def hit(path: str, start: float, score: float) -> Found:
    return Found(path, start, start + 4, score, {"narrated": 1}, "", "")


def test_sentences_happen_in_order() -> None:
    early, late = hit("a", 0, 0.5), hit("a", 20, 0.9)
    assert in_order([[early, late], [hit("a", 10, 0.8)]]) == (early, hit("a", 10, 0.8))
    assert in_order([[late], [hit("a", 10, 0.8)]]) == (late, None)
    assert in_order([[], [late], [late]]) == (None, late, late)


def test_a_description_in_order(tmp_path: Path) -> None:
    store = MomentStore.create(tmp_path / "index", {}, {})
    scenes = ["A red circle moves.", "A blue star rests.", "A green cross grows."]
    for name, order in (("forward", (0, 1, 2)), ("backward", (2, 1, 0))):
        moments = [Moment(10 * place, 10 * place + 5, scenes[k]) for place, k in enumerate(order)]
        store.put(Video(f"/{name}.mp4", name, 30, 3, "v"), moments)
    sentences, (best, other) = search_paragraph(
        store, "First a red circle. Then a blue star! A green cross at the end."
    )
    assert len(sentences) == 3 and best.path == "/forward.mp4"
    assert (best.start_seconds, best.end_seconds) == (0, 25) and None not in best.parts
    assert other.score < best.score and None in other.parts
    with pytest.raises(ConfigError, match="no words"):
        search_paragraph(store, "  ")


def test_tables_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    hits = [Found("/a, b.mp4", 1.0, 5.5, 0.5, {"seen": 2, "narrated": 1}, "=1+1", 'says "hum"'), hit("b", 0, 0.1)]
    export(hits, tmp_path / "moments.json")
    assert json.loads((tmp_path / "moments.json").read_text())[0]["why"] == {"seen": 2, "narrated": 1}
    export(hits, tmp_path / "moments.csv")
    with (tmp_path / "moments.csv").open(newline="") as opened:
        first, second = csv.DictReader(opened)
    assert first["path"] == "/a, b.mp4" and first["why"] == "seen #2; narrated #1" and first["sound"] == 'says "hum"'
    assert first["narration"] == "'=1+1" and float(second["score"]) == 0.1
    with pytest.raises(ConfigError, match=r"\.json or \.csv, found moments\.txt"):
        export(hits, tmp_path / "moments.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        export(hits, tmp_path / "none" / "moments.csv")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["moments.csv", "moments.json"]


def test_clips_are_cut(films: list[Path], tmp_path: Path) -> None:
    found = [
        Found(str(films[0]), 0.5, 1.5, 1.0, {}, "", ""),
        Found(str(films[1].with_suffix(".wav")), 0, 1, 1, {}, "", ""),
    ]
    made = cut(found, tmp_path / "clips")
    assert [file.name for file in made] == ["01-0-0.5-1.5.mp4", "02-1-0.0-1.0.m4a"]
    for file, kind in zip(made, ("video", "audio"), strict=True):
        about = inspect_clip(file)
        assert about.kind == kind and abs(about.duration_seconds - 1.0) < 0.15
    with pytest.raises(MediaError):
        cut([Found(str(tmp_path / "gone.mp4"), 0, 1, 1, {}, "", "")], tmp_path / "clips")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        cut(found, tmp_path / "file")
