"""An index that several processes make is that of one alone, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from tests.tools.small_lavila import dual_encoder_folder
from videollm.cli.main import main
from videollm.data.world_files import test_scene as kept_scene
from videollm.data.world_files import write_scene
from videollm.errors import ConfigError, ModelNotFoundError
from videollm.media.decode_worker import close_server
from videollm.moments.store import MomentStore
from videollm.tools.index import CrewNames, IndexSettings, index
from videollm.tools.index_processes import index_in_processes

SETTINGS = IndexSettings(window_seconds=4.0, stride_seconds=4.0, batch_windows=2)
ROOT = Path(__file__).parents[2]


def write_films(folder: Path, count: int) -> list[Path]:
    """Films of one thing each, small."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        scene = kept_scene("one", "seen", number)
        write_scene(replace(scene, width_px=96, height_px=96, frame_rate=4.0), folder / f"{number:02}.mp4")
    return sorted(folder.glob("*.mp4"))


def check_same(one: Path, other: Path) -> None:
    """The same rows, whatever their order; vectors up to how a processor adds."""
    import lancedb

    assert MomentStore.open(one).videos() == MomentStore.open(other).videos()
    tables = [lancedb.connect(str(into)).open_table("moments").to_arrow().sort_by("id") for into in (one, other)]
    for name in tables[0].schema.names:
        first, second = (table[name].to_pylist() for table in tables)
        if name in ("seen", "heard", "long"):
            np.testing.assert_allclose(np.array(first), np.array(second), atol=1e-5)
        else:
            assert first == second, name


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Here and in all processes: they share two cores with other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    close_server()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_films(tmp_path_factory.mktemp("index") / "films", 3)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> CrewNames:
    return CrewNames("tiny", encoder=str(dual_encoder_folder(tmp_path_factory.mktemp("encoder"))), device="cpu")


@pytest.fixture(scope="module")
def alone(films: list[Path], names: CrewNames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("alone") / "index"
    assert len(index(films, into, names.load(), SETTINGS).stored) == 3
    return into


def test_two_processes_make_the_same_index(films: list[Path], names: CrewNames, alone: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    seen: dict[Path, tuple[int, int]] = {}
    told: list[str] = []
    done = index_in_processes(
        [*films, broken], tmp_path / "index", names, SETTINGS, workers=2,
        progress=lambda video: lambda *at: seen.update({video: at}), report=told.append,
    )  # fmt: skip
    assert sorted(map(Path, done.stored)) == [film.resolve() for film in films]
    assert done.failed[0][0] == str(broken) and len(told) == 1 and "broken.mp4" in told[0]
    assert set(seen) == set(films) and all(done == total for done, total in seen.values())
    check_same(tmp_path / "index", alone)
    assert not [child for child in psutil.Process().children() if "index_processes" in " ".join(child.cmdline())]


def test_what_cannot_begin(films: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 process, found 0"):
        index_in_processes(films, tmp_path / "index", CrewNames(), workers=0)
    with pytest.raises(ModelNotFoundError, match="no dual encoder in"):
        index_in_processes(films, tmp_path / "index", CrewNames(encoder=str(tmp_path)), workers=1)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--into", "http://host/x"], "an index cannot lie in http://host/x; give a folder, or a place in an object"),
        (["--into", __file__], "is a file, where an index is a folder"),
        (["--into", "x", "--workers", "0"], "--workers must be at least 1, found 0"),
        (["--into", "x", "--engine", "spark"], "choose from 'local', 'ray'"),
    ],
)
def test_flags_that_cannot_be(
    flags: list[str], said: str, films: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before any model is loaded."""
    monkeypatch.setattr(CrewNames, "load", lambda *_: pytest.fail("models were loaded"))
    assert main(["index", str(films[0].parent), *flags]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and said in errors and errors.count("\n") == 1


@pytest.mark.slow
def test_a_process_that_dies_costs_one_video(films: list[Path], names: CrewNames, tmp_path: Path) -> None:
    killed: list[Path] = []

    def progress(video: Path):
        if not killed:
            killed.append(video)
            for child in psutil.Process().children():
                if "index_processes" in " ".join(child.cmdline()):
                    child.kill()
        return lambda *at: None

    settings = IndexSettings(window_seconds=0.5, stride_seconds=0.5, batch_windows=1)  # long enough to be caught at it
    done = index_in_processes(films, tmp_path / "index", names, settings, workers=1, progress=progress)
    assert len(done.stored) == 2 and [Path(path) for path, _ in done.failed] == [killed[0].resolve()]
    assert "was killed by SIGKILL" in done.failed[0][1]
    again = index_in_processes(films, tmp_path / "index", names, settings, workers=1)
    assert (len(again.stored), len(again.unchanged)) == (1, 2)


# The command, in a process of its own


def command(films: Path, into: Path, *flags: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "videollm", "index", str(films), "--into", str(into), "--device", "cpu"]
    words += ["--window", "4", "--stride", "4", "--batch", "2", *flags]
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def stored_in(into: Path) -> int:
    return len(MomentStore.open(into).videos()) if MomentStore.exists(into) else 0


def wait_for(count: int, into: Path, process: subprocess.Popen[str]) -> None:
    while stored_in(into) < count and process.poll() is None:
        time.sleep(0.02)


def left_of(session: int) -> list[psutil.Process]:
    """What is alive of a session after some time to end; the server of decoders has another."""
    deadline = time.monotonic() + 20
    while True:
        left = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def check_whole(into: Path) -> None:
    """The index opens; what counts as stored is there, and once."""
    import lancedb

    store = MomentStore.open(into)
    rows = lancedb.connect(str(into)).open_table("moments").to_arrow()
    ids = rows["id"].to_pylist()
    assert len(ids) == len(set(ids))
    for video in store.videos():
        assert rows["video"].to_pylist().count(video.content) == video.moments, video.path


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_twenty_times(workers: int, tmp_path: Path) -> None:
    films = write_films(tmp_path / "films", 24)
    into = tmp_path / "index"
    killed = 0
    for round_ in range(20):
        process = command(tmp_path / "films", into, "--workers", str(workers))
        wait_for(min(round_ + 1, len(films)), into, process)
        time.sleep(0.015 * round_)  # at another place in each round: between the two tables, in a merge, in a batch
        killed += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert left_of(process.pid) == []
        check_whole(into)
    print(f"killed {killed} times of 20 while it ran, {stored_in(into)} of {len(films)} videos stored by then")
    assert killed >= 18
    output, errors = command(tmp_path / "films", into, "--workers", str(workers)).communicate()
    assert " 0 failed" in output, errors
    check_whole(into)
    assert len(index(films, tmp_path / "once", CrewNames(device="cpu").load(), SETTINGS).stored) == len(films)
    check_same(into, tmp_path / "once")


@pytest.mark.slow
def test_interrupted(tmp_path: Path) -> None:
    write_films(tmp_path / "films", 8)
    into = tmp_path / "index"
    process = command(tmp_path / "films", into, "--workers", "2")
    wait_for(1, into, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and output == "" and left_of(process.pid) == []
    assert "interrupted; the same command goes on from here" in errors and "Traceback" not in errors
    output, errors = command(tmp_path / "films", into, "--workers", "2").communicate()
    assert output.startswith(f"{into}: ") and " 0 failed" in output and " 0 unchanged" not in output, errors
    check_whole(into)
    assert stored_in(into) == 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_commands_at_once_while_one_searches(tmp_path: Path) -> None:
    """Both begin with nothing, and with the same videos."""
    films = write_films(tmp_path / "films", 8)
    into = tmp_path / "index"
    both = [command(tmp_path / "films", into, "--workers", "1") for _ in range(2)]
    searches = 0
    while any(process.poll() is None for process in both):
        if stored_in(into):
            hits = MomentStore.open(into).search("circle square star triangle cross", limit=100)
            assert hits and all(Path(hit.path) in films for hit in hits)
            searches += 1
        time.sleep(0.1)
    for process in both:
        output, errors = process.communicate()
        assert process.returncode == 0 and " 0 failed" in output, errors
    assert searches
    check_whole(into)
    assert stored_in(into) == len(films)
    index(films, tmp_path / "once", CrewNames(device="cpu").load(), SETTINGS)
    check_same(into, tmp_path / "once")
