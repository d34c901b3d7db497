"""Queries of a library are true of one moment each; a smaller library is the beginning of a larger one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from videollm.data.world_narrations import facts_of, read_facts
from videollm.data.world_sounds import heard_between
from videollm.evaluation.library import LibraryFilm, Query, draw_library, draw_queries, overlap
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling


@pytest.fixture(scope="module")
def library() -> list[LibraryFilm]:
    return draw_library(4, first=900)


@pytest.fixture(scope="module")
def queries(library: list[LibraryFilm]) -> list[Query]:
    return draw_queries(library, 100)


def test_films(library: list[LibraryFilm]) -> None:
    assert [film.name for film in library][:2] == ["film-900.mp4", "film-901.mp4"]
    assert draw_library(2, first=900) == library[:2]
    for film in library:
        assert 60 <= film.duration_seconds < 610
        silent = 2
        for scene in film.scenes:  # what is heard of two scenes is never heard in one window
            assert not scene.sounds or silent >= 2
            silent = 0 if scene.sounds else silent + 1


def test_what_is_described_by_sight_is_there_once(library: list[LibraryFilm], queries: list[Query]) -> None:
    asked = [query for query in queries if query.kind == "sight"]
    assert len(asked) > 10
    for query in asked:
        stated = read_facts(query.words)
        assert stated is not None
        places = [
            (film.number, span)
            for film in library
            for scene, span in zip(film.scenes, film.spans_seconds, strict=True)
            if set(stated.things) <= set(facts_of(scene).things) and facts_of(scene).background == stated.background
        ]
        assert places == [(query.film, (query.start_seconds, query.end_seconds))]


def test_what_is_described_by_sound_is_there_once(library: list[LibraryFilm], queries: list[Query]) -> None:
    asked = [query for query in queries if query.kind == "sound"]
    films = {film.number: film for film in library}
    pairs = []
    for query in asked:
        film = films[query.film]
        events = [
            replace(event, start_seconds=event.start_seconds + start, end_seconds=event.end_seconds + start)
            for scene, (start, _) in zip(film.scenes, film.spans_seconds, strict=True)
            for event in scene.sounds
        ]
        heard = heard_between(events, query.start_seconds - 0.01, query.end_seconds + 0.01)
        assert len(heard) == 2
        pairs.append(frozenset(heard))
    assert len(set(pairs)) == len(pairs) > 3


def test_of_both_neither_half_is_enough(library: list[LibraryFilm], queries: list[Query]) -> None:
    asked = [query for query in queries if query.kind == "both"]
    assert asked and all(query.sight in query.words and query.sound in query.words for query in asked)
    for query in asked:
        facts = read_facts(f"{query.sight} on a black background")
        assert facts is not None
        there = [scene for film in library for scene in film.scenes if set(facts.things) <= set(facts_of(scene).things)]
        assert len(there) > 1


def test_a_film_is_written(library: list[LibraryFilm], tmp_path: Path) -> None:
    start = next(number for number, scene in enumerate(library[0].scenes) if scene.sounds)
    film = replace(library[0], scenes=library[0].scenes[start : start + 2])
    film.write(tmp_path / film.name)
    clip = read_clip(
        tmp_path / film.name, frames=FrameSampling("rate", rate_hz=1.0), sound=SoundSampling("contiguous", 64, 2.0)
    )
    assert clip.frames is not None and clip.waveforms is not None
    assert abs(clip.duration_seconds - film.duration_seconds) < 0.3
    assert max(float(abs(wave.samples).max()) for wave in clip.waveforms) > 0.003


def test_overlap() -> None:
    assert overlap((0, 4), (2, 6)) == pytest.approx(1 / 3)
    assert overlap((0, 4), (4, 6)) == 0 and overlap((1, 2), (1, 2)) == 1
