"""What is heard in stretches of a track, what words state of it, and when that is true."""

from __future__ import annotations

import numpy as np
import pytest

from videollm.data.world import SOUNDS, SoundEvent
from videollm.data.world_sounds import Heard, Statement, draw_statement, draw_track, heard_between, wording

HUM = SoundEvent("hum", 1.0, 3.0, 1, 0.5, 0)
BEEPS = SoundEvent("beeps", 4.0, 6.0, 3, 0.5, 0)


@pytest.mark.parametrize(
    "start, end, expected",
    [
        (0.0, 8.0, (Heard("hum", 1), Heard("beeps", 3))),
        (2.8, 4.5, (Heard("beeps", 2),)),
        (2.6, 3.9, (Heard("hum", 1),)),
        (6.0, 9.0, ()),
    ],
)
def test_what_is_heard_of_a_stretch(start: float, end: float, expected: tuple[Heard, ...]) -> None:
    assert heard_between([HUM, BEEPS], start, end) == expected


@pytest.mark.parametrize(
    "statement, true",
    [
        (Statement((("hum", None),)), True),
        (Statement((("beeps", 3),)), True),
        (Statement((("beeps", 2),)), False),
        (Statement((("hum", None), ("beeps", None)), ordered=True), True),
        (Statement((("beeps", None), ("hum", None)), ordered=True), False),
        (Statement((("beeps", None), ("hum", None))), True),
        (Statement((("music", None),)), False),
        (Statement(()), False),
    ],
)
def test_when_a_statement_is_true(statement: Statement, true: bool) -> None:
    assert statement.is_true((Heard("hum", 1), Heard("beeps", 3))) is true
    assert Statement(()).is_true(())


def test_statements_that_are_drawn_are_true_and_wordings_name_what_they_state() -> None:
    rng = np.random.default_rng(0)
    known: set[str] = set()
    kept: set[str] = set()
    for _ in range(400):
        kinds = [str(kind) for kind in rng.permutation(SOUNDS)[: int(rng.integers(3))]]
        heard = [Heard(kind, int(rng.integers(1, 5)) if kind in ("beeps", "clicks") else 1) for kind in kinds]
        statement = draw_statement(heard, rng)
        assert statement.is_true(heard)
        known.add(wording(statement, rng))
        kept.add(wording(statement, rng, held_out=True))
    assert not known & kept
    counted = wording(Statement((("beeps", 3), ("clicks", 1)), ordered=True), np.random.default_rng(0))
    assert "three beeps" in counted and "click" in counted and "clicks" not in counted


def test_a_track_sounds_where_its_events_are() -> None:
    track = draw_track(700_000_003, 8000)
    again = draw_track(700_000_003, 8000)
    np.testing.assert_array_equal(track.samples, again.samples)
    loud = np.abs(track.samples)
    for event in track.events:
        inside = loud[round(event.start_seconds * 8000) : round(event.end_seconds * 8000)]
        assert inside.max() > 0.004
    assert track.heard(0.0, len(track.samples) / 8000)
