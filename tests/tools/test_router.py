"""A call is checked strictly, runs within limits over named files alone, and gives back data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_model import small_model
from videollm.chat.calls import Evidence
from videollm.data.world_files import test_scene as kept_scene
from videollm.data.world_files import write_scene
from videollm.errors import ConfigError
from videollm.media.decode_worker import close_server
from videollm.models import hub
from videollm.moments.store import MomentStore
from videollm.tools.narrators import ChatNarrator
from videollm.tools.router import Router, ToolLimits, as_data


@pytest.fixture(scope="module", autouse=True)
def no_server_left() -> Iterator[None]:
    yield
    close_server()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two films, and their names in a session, which are not those of the files."""
    folder = tmp_path_factory.mktemp("films")
    named = {}
    for number in (0, 1):
        scene = kept_scene("one", "seen", number)
        write_scene(replace(scene, width_px=96, height_px=96, frame_rate=8.0), folder / f"{number}.mp4")
        named[f"film {number}"] = folder / f"{number}.mp4"
    return named


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    """Random weights: what is told means nothing."""
    router = Router(ChatNarrator(*small_model(), max_new_tokens=4))
    yield router
    router.close()


STRETCH = {"video": "film 0", "start_seconds": 0, "end_seconds": 2.0}


@pytest.mark.parametrize(
    "name, arguments, why",
    [
        ("delete", {}, "there is no tool 'delete'; there are narrate, search, look, listen, chapters"),
        ("__class__", {}, "no tool"),
        ("call", STRETCH, "no tool"),
        ("look", {}, "look takes video, start_seconds, end_seconds; found none"),
        ("look", STRETCH | {"path": "/etc/passwd"}, "found 'video', 'start_seconds', 'end_seconds', 'path'"),
        (
            "look",
            STRETCH | {"video": "/etc/passwd"},
            "there is no video '/etc/passwd' here; there are 'film 0', 'film 1'",
        ),
        ("look", STRETCH | {"video": "https://example.com/a.mp4"}, "there is no video"),
        ("look", STRETCH | {"video": "0.mp4"}, "there is no video '0.mp4'"),
        ("look", STRETCH | {"video": ["film 0"]}, "video is text"),
        ("look", STRETCH | {"start_seconds": "0"}, "start_seconds is a number of seconds, found '0'"),
        ("look", STRETCH | {"start_seconds": True}, "is a number"),
        ("look", STRETCH | {"end_seconds": float("nan")}, "is a number"),
        ("look", STRETCH | {"start_seconds": 2.0}, "a stretch starts at 0 or later and ends after that, found 2 to 2"),
        ("narrate", STRETCH | {"start_seconds": -1}, "a stretch starts"),
        ("listen", STRETCH | {"start_seconds": 900, "end_seconds": 901}, "starts at 900 s, the video lasts"),
        ("search", {"query": "/etc/passwd"}, "found a path or an address"),
        ("search", {"query": "call search on /etc/passwd"}, "found a path or an address"),
        ("search", {"query": "see file://etc"}, "found a path or an address"),
        ("search", {"query": "../../secret"}, "found a path or an address"),
        ("search", {"query": " \n"}, "a query has 1 to"),
        ("search", {"query": "x" * 301}, "a query has 1 to"),
        ("search", {"query": 3}, "query is text"),
        ("chapters", {"video": "film 2"}, "no video 'film 2'"),
    ],
)
def test_a_call_that_is_not_allowed_is_refused_in_one_line(router, files, name, arguments, why) -> None:
    outcome = router.call(name, arguments, files)
    assert outcome.refused and why in outcome.content and "\n" not in outcome.content
    assert not outcome.used and outcome.clip is None


def test_an_allowed_query_may_hold_a_slash_inside(router, files) -> None:
    pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")
    assert not router.call("search", {"query": "red and/or blue, 1/2"}, files).refused


def test_a_broken_file_and_one_without_sound_are_refused(router, files, tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    for name in ("narrate", "look", "listen"):
        outcome = router.call(name, STRETCH | {"video": "b"}, {"b": broken})
        assert outcome.refused and "broken.mp4" in outcome.content and "\n" not in outcome.content
    gone = router.call("look", STRETCH | {"video": "gone"}, {"gone": tmp_path / "gone.mp4"})
    assert gone.refused and "gone.mp4" in gone.content
    deaf = Router.of_model(*small_model(ears=False))
    assert "no ear" in deaf.call("listen", STRETCH, files).content


def test_look_and_listen_show_a_stretch_or_tell_of_it(router, files) -> None:
    shown = router.call("look", STRETCH | {"start_seconds": 1.0}, files, shows=True)
    assert shown.clip is not None and shown.clip.frames is not None and shown.clip.waveforms is None
    assert len(shown.clip.frames) == 4, "4 a second, in this second alone"
    assert shown.used == (Evidence("film 0", 1.0, 2.0, "seen"),)
    assert shown.content == "film 0 [0:01-0:02] 4 frames"
    heard = router.call("listen", STRETCH | {"video": "film 1"}, files, shows=True)
    assert heard.clip is not None and heard.clip.frames is None and heard.clip.waveforms
    assert heard.used[0].how == "heard"
    told = router.call("look", STRETCH, files)
    assert told.clip is None and told.content.startswith("film 0 [0:00-0:02] 8 frames: ") and not told.refused


def test_an_end_behind_the_end_is_the_end(router, files) -> None:
    (used,) = router.call("look", STRETCH | {"end_seconds": 1e6}, files, shows=True).used
    assert 3.0 < used.end_seconds < 10.0


def test_calls_are_limited_in_time_and_can_be_stopped(router, files) -> None:
    stopped = router.call("narrate", STRETCH, files, stopped=lambda: True)
    assert stopped.refused and stopped.content == "narrate was ended: it was stopped"
    hasty = Router(router.narrator, limits=ToolLimits(seconds_per_call=1e-6))
    hasty.files_limits = router.files_limits
    late = hasty.call("chapters", {"video": "film 0"}, files)
    assert late.refused and "a call may take 1e-06 s" in late.content


def test_output_is_limited_and_is_one_line_a_finding(router, files) -> None:
    short = Router(router.narrator, limits=ToolLimits(output_characters=60))
    outcome = short.call("narrate", STRETCH, files)
    assert len(outcome.content) <= 60
    lines = [f"finding {number}" for number in range(100)]
    evidence = tuple(Evidence("v", n, n + 1, "narrated") for n in range(100))
    cut = short._outcome(lines, evidence)
    assert len(cut.content) <= 60 and cut.content.splitlines()[-1] == f"({100 - len(cut.used)} more)"
    assert cut.content.splitlines()[:-1] == lines[: len(cut.used)]


def test_text_of_strangers_is_one_plain_line() -> None:
    assert as_data("a\x1b[31mred\x00\n\n###  b\u202ec\u200b") == "a[31mred ### bc"


def test_schemas_are_those_of_the_declarations(router) -> None:
    functions = [schema["function"] for schema in router.schemas]
    assert [one["name"] for one in functions] == ["narrate", "search", "look", "listen", "chapters"]
    assert functions[2]["parameters"]["required"] == ["video", "start_seconds", "end_seconds"]
    assert all(one["description"] for one in functions)


@pytest.mark.parametrize("limits", [{"calls_per_turn": -1}, {"seconds_per_call": 0}, {"output_characters": 3}])
def test_limits_that_make_no_sense(limits) -> None:
    with pytest.raises(ConfigError, match="tools may be called 0 times a turn or more"):
        ToolLimits(**limits)


def test_what_was_told_of_a_file_goes_with_it(router, files, tmp_path) -> None:
    pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")
    own = Router(router.narrator)
    copy = tmp_path / "copy.mp4"
    shutil.copy(files["film 0"], copy)
    try:
        own.call("search", {"query": "circle"}, {"copy": copy, "film 1": files["film 1"]})
        store = MomentStore.open(own._own_place)
        assert [Path(video.path).name for video in store.videos()] == ["1.mp4", "copy.mp4"]
        copy.unlink()
        own.prune()
        assert [Path(video.path).name for video in store.videos()] == ["1.mp4"]
    finally:
        own.close()


def test_tiny_tells_the_truth_through_every_tool(files) -> None:
    pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")
    model, processor = hub.load("tiny", device="cpu")
    router = Router.of_model(model, processor)
    try:
        (thing,) = kept_scene("one", "seen", 0).things
        for name in ("look", "narrate"):
            content = router.call(name, STRETCH | {"end_seconds": 100}, files).content
            assert thing.colour in content and thing.shape in content, content
        found = router.call("search", {"query": f"the {thing.colour} {thing.shape}"}, files)
        assert found.content.startswith("film 0 [") and found.used[0].how == "retrieved"
        only = router.call("search", {"query": f"the {thing.colour} {thing.shape}"}, {"film 1": files["film 1"]})
        assert all(one.video == "film 1" for one in only.used), "what another session searched is not found"
        parts = router.call("chapters", {"video": "film 0"}, files)
        assert parts.used[0].start_seconds == 0.0 and thing.shape in parts.content
        assert parts.content.startswith("part 1 [0:00-")
        assert "hear" in router.call("listen", STRETCH | {"video": "film 1"}, files).content.lower()
    finally:
        router.close()
