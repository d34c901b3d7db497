"""An index keeps what was stored, finds it in every way, and survives being killed and shared."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from tests.moments.small_s3 import small_s3
from videollm.errors import MomentIndexError
from videollm.moments import store as store_module
from videollm.moments.moment import Moment, Video
from videollm.moments.store import MomentStore

WIDTHS = {"seen": 8, "heard": 4}
ENCODERS = {"seen": "an eye", "heard": "an ear"}


def axis(number: int, width: int) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[number % width]


def moment(number: int, narration: str = "", sound: str = "", length: float = 4.0) -> Moment:
    """Windows of ``length`` seconds, one every four."""
    vectors = {"seen": axis(number, 8)} | ({"heard": axis(number, 4)} if sound else {})
    return Moment(4.0 * number, 4.0 * number + length, narration, sound, vectors)


def put(store: MomentStore, path: str, *moments: Moment, content: str | None = None) -> None:
    store.put(Video(path, content or f"bytes of {path}", 60.0, len(moments), "v1"), moments)


@pytest.fixture
def store(tmp_path: Path) -> MomentStore:
    store = MomentStore.create(tmp_path / "index", WIDTHS, ENCODERS)
    put(
        store, "kitchen.mp4",
        moment(0, "A red circle moves up.", "a dog barks"), moment(1, "A blue square is still."),
        moment(2, "Nothing happens.", "a loud bell"),
    )  # fmt: skip
    put(store, "it's a garden.mp4", moment(3, "A red star moves left."), moment(4, "A green circle falls."))
    return store


def found(store: MomentStore, *args, **kwargs) -> list[tuple[str, float]]:
    return [(hit.path, hit.start_seconds) for hit in store.search(*args, **kwargs)]


def test_words_find_what_is_narrated_and_heard(store: MomentStore) -> None:
    (hit, *_) = store.search("red star")
    assert (hit.path, hit.start_seconds, hit.end_seconds) == ("it's a garden.mp4", 12.0, 16.0)
    assert hit.narration == "A red star moves left." and hit.why == {"narrated": 1} and hit.score == 1.0
    (bark,) = store.search("where does the dog bark?")
    assert (bark.path, bark.start_seconds, bark.sound) == ("kitchen.mp4", 0.0, "a dog barks")
    assert bark.why == {"heard in words": 1}
    assert store.search("elephant") == [] and store.search("") == [] and store.search() == []


def test_words_that_stand_together_come_first(store: MomentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "POOL", 2)
    others = [moment(2 * number, "A white cross grows on a green background.", "a tone") for number in range(6)]
    put(store, "crosses.mp4", *others, moment(12, "A small green cross moves left and a red star up.", "a green cross"))
    for query in ("green cross", "When is the green cross shown?"):
        (hit, *_) = store.search(query, paths=["crosses.mp4"])
        assert hit.start_seconds == 48.0, "of more than are kept"
    (hit, *_) = store.search("white cross")
    assert hit.narration == "A white cross grows on a green background."


def test_vectors_find_by_their_angle(store: MomentStore) -> None:
    (hit, *_) = store.search(vectors={"seen": 5 * axis(4, 8) + 0.1})
    assert (hit.path, hit.start_seconds) == ("it's a garden.mp4", 16.0) and hit.why == {"seen": 1}
    heard = found(store, vectors={"heard": axis(2, 4)})
    assert heard == [("kitchen.mp4", 8.0), ("kitchen.mp4", 0.0)]  # the others have no sound, and so no such vector


def test_ways_are_fused(store: MomentStore) -> None:
    """Both circles are narrated; the vector tells which is meant."""
    (hit, other, *_) = store.search("circle", {"seen": axis(4, 8)})
    assert (hit.path, hit.start_seconds) == ("it's a garden.mp4", 16.0) and set(hit.why) == {"narrated", "seen"}
    assert 1.0 >= hit.score > other.score


def test_filters(store: MomentStore) -> None:
    assert found(store, "red", paths=["it's a garden.mp4"]) == [("it's a garden.mp4", 12.0)]
    assert found(store, "red", between_seconds=(0, 5)) == [("kitchen.mp4", 0.0)]
    assert found(store, "red", paths=["elsewhere.mp4"]) == []
    assert len(store.search("a", {"seen": axis(0, 8)}, limit=2)) == 2
    assert store.search("red", limit=0) == []


def test_overlapping_windows_become_one_stretch(tmp_path: Path) -> None:
    store = MomentStore.create(tmp_path / "index", WIDTHS, ENCODERS)
    same = [moment(n, "A red circle moves up.", length=6.0) for n in (0, 1)]
    put(store, "a.mp4", *same, moment(5, "A red circle moves up."))
    first, second = store.search("red circle")
    assert {(hit.start_seconds, hit.end_seconds) for hit in (first, second)} == {(0.0, 10.0), (20.0, 24.0)}


def test_a_file_stored_again_is_replaced_not_doubled(store: MomentStore) -> None:
    before = store.search("circle")
    put(
        store, "kitchen.mp4", moment(0, "A red circle moves up.", "a dog barks"),
        moment(1, "A blue square is still."), moment(2, "Nothing happens.", "a loud bell"),
    )  # fmt: skip
    assert len(store) == 5 and store.search("circle") == before
    put(store, "kitchen.mp4", moment(0, "A white cross."), content="other bytes")
    assert len(store) == 3 and found(store, "cross") == [("kitchen.mp4", 0.0)] and store.search("square") == []
    assert [video.path for video in store.videos()] == ["it's a garden.mp4", "kitchen.mp4"]


def test_a_copy_shares_its_moments_until_the_last_is_gone(store: MomentStore) -> None:
    put(store, "copy.mp4", moment(3, "A red star moves left."), moment(4, "A green circle falls."),
        content="bytes of it's a garden.mp4")  # fmt: skip
    assert len(store) == 5
    store.remove("it's a garden.mp4")
    assert found(store, "star") == [("copy.mp4", 12.0)]
    store.remove("copy.mp4")
    store.remove("never there.mp4")
    assert len(store) == 3 and store.search("star") == []


def test_a_copy_that_is_stored_while_the_first_is_replaced(
    store: MomentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second may lose its moments, and is then known to lack them."""
    other = MomentStore.open(tmp_path / "index")
    delete = store._moments.delete

    def late(condition: str) -> object:
        put(other, "copy.mp4", moment(0), moment(1), content="bytes of kitchen.mp4")
        return delete(condition)

    monkeypatch.setattr(store._moments, "delete", late)
    put(store, "kitchen.mp4", moment(0), content="other bytes")
    assert {video.path for video in other.videos()} == {"kitchen.mp4", "copy.mp4", "it's a garden.mp4"}
    assert [video.path for video in other.whole()] == ["it's a garden.mp4", "kitchen.mp4"]
    put(other, "copy.mp4", moment(0), moment(1), content="bytes of kitchen.mp4")
    assert len(other.whole()) == 3 and len(other.moments("copy.mp4")) == 2


def test_a_video_without_moments(store: MomentStore) -> None:
    put(store, "empty.mp4")
    put(store, "kitchen.mp4", content="other bytes")
    assert len(store) == 2 and [video.moments for video in store.videos()] == [0, 2, 0]


def test_it_opens_again_and_tidies(store: MomentStore, tmp_path: Path) -> None:
    store.tidy()
    again = MomentStore.open(tmp_path / "index")
    assert again.encoders == ENCODERS and found(again, "star") == [("it's a garden.mp4", 12.0)]
    put(MomentStore.create(tmp_path / "index", WIDTHS, ENCODERS), "late.mp4", moment(0, "A late triangle."))
    assert found(again, "triangle") == [("late.mp4", 0.0)]


def test_what_is_no_index_is_told(store: MomentStore, tmp_path: Path) -> None:
    with pytest.raises(MomentIndexError, match=r"no index at .*; make one with: videollm index"):
        MomentStore.open(tmp_path / "nowhere")
    with pytest.raises(MomentIndexError, match="another eye"):
        MomentStore.create(tmp_path / "index", WIDTHS, ENCODERS | {"seen": "another eye"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(MomentIndexError, match="holds other files"):
        MomentStore.create(tmp_path / "full", WIDTHS, ENCODERS)
    with pytest.raises(MomentIndexError, match="holds no index"):
        MomentStore.open(tmp_path / "full")
    with pytest.raises(MomentIndexError, match="is a file"):
        MomentStore.create(tmp_path / "full" / "thesis.txt", WIDTHS, ENCODERS)
    with pytest.raises(MomentIndexError, match="holds 'seen' vectors of 8 numbers by an eye"):
        store.search(vectors={"seen": axis(0, 4)})
    with pytest.raises(MomentIndexError, match="no vectors of kind 'long'"):
        store.search(vectors={"long": axis(0, 4)})


def test_words_are_never_a_query_language(store: MomentStore) -> None:
    for words in ('"red star"', "red AND (star", "narration:star ~1 *", "' OR 1=1 --", "star\n\x00", "??!"):
        hits = store.search(words)
        assert all(hit.path for hit in hits)
    assert found(store, '"red star')[0] == ("it's a garden.mp4", 12.0)


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from tests.moments.test_store import ENCODERS, WIDTHS, moment, put
from videollm.moments.store import MomentStore
store = MomentStore.create(sys.argv[1], WIDTHS, ENCODERS)
for number in range(int(sys.argv[4])):
    for name in (sys.argv[2], *sys.argv[5:]):
        put(store, f"{name} {number}.mp4", *(moment(n, f"A red star {number}.") for n in range(4)))
    print(number, flush=True)
store.tidy()
"""
ROOT = Path(__file__).parents[2]


def writer(index: Path, name: str, videos: int, *others: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(index), name, str(ROOT), str(videos), *others]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_while_writing(rounds: int, tmp_path: Path) -> None:
    """Whatever was said to be stored is there, nothing twice, and the work can be done again."""
    index = tmp_path / "index"
    MomentStore.create(index, WIDTHS, ENCODERS)
    for round_ in range(rounds):
        process = writer(index, f"{round_}", 100)
        assert process.stdout is not None
        for _ in range(2 + round_ % 3):
            said = int(process.stdout.readline())
        time.sleep(0.03 * (round_ % 7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = MomentStore.open(index)
        kept = [video for video in store.videos() if video.path.startswith(f"{round_} ")]
        assert {f"{round_} {number}.mp4" for number in range(said + 1)} <= {video.path for video in kept}
        assert all(video.moments == 4 for video in kept)
        for video in kept:
            put(store, video.path, *(moment(n, "A red star.") for n in range(4)))
        mine = store.search("star", paths=[video.path for video in kept], limit=1000)
        assert len(mine) == len({(hit.path, hit.start_seconds) for hit in mine}) == 4 * len(kept)


def test_two_write_while_one_searches(tmp_path: Path) -> None:
    """Each its own videos, and both the same."""
    index = tmp_path / "index"
    store = MomentStore.create(index, WIDTHS, ENCODERS)
    writers = [writer(index, name, 5, "both") for name in ("one", "two")]
    while any(process.poll() is None for process in writers):
        assert all(hit.narration.startswith("A red star") for hit in store.search("star", {"seen": axis(1, 8)}))
    for process in writers:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(store.videos()) == 15 and len(store) == 60


def test_the_same_rows_at_once(tmp_path: Path) -> None:
    """Of two that began before either had stored anything, the second replaces what the first stored."""
    stores = [MomentStore.create(tmp_path / "index", WIDTHS, ENCODERS) for _ in range(2)]
    for number in range(4):
        barrier = Barrier(2)

        def store_it(store: MomentStore, path: str = f"{number}.mp4", barrier: Barrier = barrier) -> None:
            barrier.wait()
            put(store, path, *(moment(n, "A red star.") for n in range(4)))

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(store_it, stores))
    assert len(stores[0].videos()) == 4 and len(stores[0]) == 16


def test_many_vectors_are_found_through_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made when there are enough; it grows with what is stored, and its partitions stay as small as they were."""
    lancedb = pytest.importorskip("lancedb")
    monkeypatch.setattr(store_module, "INDEXED_FROM", 300)
    monkeypatch.setattr(store_module, "INDEXED_EVERY", 50)
    monkeypatch.setattr(store_module, "IN_A_PARTITION", 20)
    monkeypatch.setattr(store_module, "PROBES", 8)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3100, 8), np.float32)
    store = MomentStore.create(tmp_path / "index", WIDTHS, ENCODERS)

    def put_some(first: int, count: int) -> None:
        windows = [
            Moment(4.0 * n, 4.0 * n + 4, "", "", {"seen": vectors[n]} | ({"heard": axis(n, 4)} if n < 10 else {}))
            for n in range(first, first + count)
        ]
        put(store, f"{first}.mp4", *windows)

    def nearest(number: int, **options) -> float:
        return store.search(vectors={"seen": vectors[number] + 0.001}, limit=1, **options)[0].start_seconds / 4

    def table() -> Any:
        return lancedb.connect(tmp_path / "index").open_table("moments")

    def indexes() -> list[str]:
        return sorted(one.name for one in table().list_indices() if one.name.startswith(("seen", "heard")))

    def partitions() -> int:
        plan = table().search(vectors[0], vector_column_name="seen").distance_type("cosine").limit(1).analyze_plan()
        (ranked,) = re.findall(r"partitions_ranked=(\d+),", plan)
        return int(ranked)

    put_some(0, 200)
    store.tidy()
    assert indexes() == []
    put_some(200, 200)
    store.tidy()
    assert indexes() == ["seen_by_20"] and partitions() == 20  # of what is heard, there are ten
    put_some(400, 100)
    store.tidy()
    put_some(500, 1)
    asked = [3, 250, 450, 500]
    assert [nearest(number) for number in asked] == asked
    assert nearest(450, paths=["400.mp4"]) == 450 and nearest(250, between_seconds=(1000, 1004)) == 250
    assert 400 <= nearest(3, paths=["400.mp4"]) < 500
    assert 200 <= nearest(3, between_seconds=(801, 1999)) < 500
    store.tidy()
    assert nearest(500) == 500, "one is soon compared"
    for first, count in ((600, 100), (700, 100), (900, 2200)):
        put_some(first, count)
        store.tidy()
    assert indexes() == ["seen_by_20"] and nearest(750) == 750 and nearest(3000) == 3000
    assert 2901 / 80 < partitions() < 2901 / 5
    monkeypatch.setattr(store_module, "IN_A_PARTITION", 50)
    put_some(800, 60)
    store.tidy()
    assert indexes() == ["seen_by_50"] and nearest(830) == 830, "made by another version, it is made anew"


DIVIDED = """
import sys
import numpy as np
from videollm.moments import store
from videollm.moments.moment import Moment, Video

store.INDEXED_FROM, store.INDEXED_EVERY = 20_000, 1000
rng = np.random.default_rng(0)
spread, close = rng.standard_normal((2, 20_000, 8), np.float32)
vectors = np.concatenate([spread, spread[0] + 0.05 * close])
index = store.MomentStore.create(sys.argv[1], {"seen": 8}, {"seen": "an eye"})
for first in (0, 20_000):
    windows = [Moment(4.0 * n, 4.0 * n + 4, "", "", {"seen": vectors[n]}) for n in range(first, first + 20_000)]
    index.put(Video(f"{first}.mp4", f"bytes of {first}", 1e6, 20_000, "v1"), windows)
    index.tidy()
asked = rng.permutation(40_000)[:200]
print([int(n) for n in asked if index.search(vectors={"seen": vectors[n]}, limit=1)[0].start_seconds != 4.0 * n])
"""


@pytest.mark.slow
def test_an_index_whose_partitions_are_divided_finds_all(tmp_path: Path) -> None:
    """20,000 new vectors near one of its partitions; LanceDB's warnings of that are heard by those who ask for them."""
    for log, heard in (({}, False), ({"LANCEDB_LOG": "warn"}, True)):
        words = [sys.executable, "-c", DIVIDED, str(tmp_path / f"index {heard}")]
        done = subprocess.run(words, env={**os.environ, **log}, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n" and ("skip loading it" in done.stderr) == heard


def test_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        address = "s3://bucket/library"
        assert not MomentStore.exists(address)
        store = MomentStore.create(address, WIDTHS, ENCODERS)
        put(store, "a.mp4", moment(0, "A red circle moves up.", "a dog barks"), moment(1, "A blue square is still."))
        put(store, "a.mp4", moment(0, "A red circle moves up.", "a dog barks"), moment(1, "A blue square is still."))
        again = MomentStore.open(address)
        assert found(again, "square") == [("a.mp4", 4.0)] and len(again) == 2
        assert found(again, vectors={"seen": axis(0, 8)}, limit=1) == [("a.mp4", 0.0)]
        with pytest.raises(MomentIndexError, match="s3://bucket/other holds no index"):
            MomentStore.open("s3://bucket/other")
    with pytest.raises(MomentIndexError, match="s3://bucket/library cannot be read or written") as gone:
        MomentStore.open(address)
    assert "\n" not in str(gone.value)


@pytest.mark.parametrize("address", ["http://host/x", "db://x", "memory://", "ftp://x/y", "hf://x/y", "S3://bucket/x"])
def test_other_places_are_refused(address: str) -> None:
    for ask in (MomentStore.exists, MomentStore.open, lambda place: MomentStore.create(place, {}, {})):
        with pytest.raises(MomentIndexError, match=r"an index cannot lie in .*; give a folder, or"):
            ask(address)


def test_a_damaged_index_is_told_in_a_line(store: MomentStore, tmp_path: Path) -> None:
    for file in (tmp_path / "index" / "moments.lance" / "data").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(MomentIndexError, match="cannot be read or written") as damaged:
        MomentStore.open(tmp_path / "index").search("circle")
    assert "\n" not in str(damaged.value)
