"""A client of the official library lists and calls the tools, and reads errors; nothing outside the folder is read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

pytest.importorskip("mcp", reason="mcp (the mcp extra) is not installed")
pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from mcp import Client, StdioServerParameters

from tests.small_model import small_model
from videollm.data.world_files import test_scene as kept_scene
from videollm.data.world_files import write_scene
from videollm.media.decode_worker import close_server
from videollm.serving.mcp import files_of, tool_server
from videollm.tools.narrators import ChatNarrator
from videollm.tools.router import Router


@pytest.fixture(scope="module", autouse=True)
def no_server_left() -> Iterator[None]:
    yield
    close_server()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film in a folder of its own, a text, and a link to a film outside."""
    place = tmp_path_factory.mktemp("place")
    inside = place / "videos"
    (inside / "deep").mkdir(parents=True)
    scene = kept_scene("one", "seen", 1)
    write_scene(replace(scene, width_px=96, height_px=96, frame_rate=8.0), inside / "deep" / "film.mp4")
    shutil.copy(inside / "deep" / "film.mp4", place / "outside.mp4")
    (inside / "link.mp4").symlink_to(place / "outside.mp4")
    (inside / "note.txt").write_text("no film")
    return inside


def test_a_client_lists_the_tools_and_calls_each(folder: Path) -> None:
    router = Router(ChatNarrator(*small_model(), max_new_tokens=4))
    stretch = {"video": "deep/film.mp4", "start_seconds": 0, "end_seconds": 2}

    async def talk() -> None:
        async with Client(tool_server(router, lambda: files_of(folder))) as client:
            assert client.instructions is not None and '["deep/film.mp4"]' in client.instructions
            listed = (await client.list_tools()).tools
            assert [tool.name for tool in listed] == ["narrate", "search", "look", "listen", "chapters"]
            for tool in listed:
                assert tool.annotations is not None and tool.annotations.read_only_hint
                assert tool.input_schema["additionalProperties"] is False
                by_name = {"query": "a red circle", **stretch}
                arguments = {name: by_name[name] for name in tool.input_schema["properties"]}
                result = await client.call_tool(tool.name, arguments)
                assert not result.is_error, result.content
                assert result.content[0].text  # pyright: ignore
                used = result.structured_content["used"]
                assert tool.name == "search" or used[0]["video"] == "deep/film.mp4"
            for name, arguments, why in (
                ("delete", {}, "there is no tool 'delete'"),
                ("look", {"video": "deep/film.mp4"}, "look takes video, start_seconds, end_seconds"),
                (
                    "look",
                    stretch | {"video": "link.mp4"},
                    "there is no video 'link.mp4' here; there are 'deep/film.mp4'",
                ),
                ("look", stretch | {"video": "../outside.mp4"}, "there is no video '../outside.mp4'"),
                ("look", stretch | {"video": str(folder / "deep" / "film.mp4")}, "there is no video"),
                ("look", stretch | {"end_seconds": -1}, "a stretch starts at 0 or later"),
                ("search", {"query": "/etc/passwd"}, "found a path or an address"),
            ):
                result = await client.call_tool(name, arguments)
                assert result.is_error and why in result.content[0].text, (name, arguments)  # pyright: ignore

    try:
        anyio.run(talk)
    finally:
        router.close()


@pytest.mark.slow
def test_the_command_speaks_over_stdin_and_stdout(folder: Path) -> None:
    """The program itself, with tiny, started by the client as an assistant would."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "videollm", "mcp", str(folder)])
    (thing,) = kept_scene("one", "seen", 1).things

    async def talk() -> None:
        async with Client(server) as client:
            arguments = {"video": "deep/film.mp4", "start_seconds": 0, "end_seconds": 60}
            result = await client.call_tool("look", arguments)
            text = result.content[0].text  # pyright: ignore
            assert not result.is_error and thing.colour in text and thing.shape in text, text

    anyio.run(talk)
