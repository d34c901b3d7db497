"""An index is brought up to date by what changed, finds what tiny tells, and goes on when it was stopped."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from tests.models.lf_vila.small_lf_vila import small_model as long_model
from tests.models.lf_vila.small_lf_vila import small_processor
from tests.small_model import small_model
from tests.tools.small_lavila import dual_encoder_folder
from videollm.clips import Clip
from videollm.data.world_files import test_scene as kept_scene
from videollm.data.world_files import write_scene
from videollm.errors import ConfigError, ModelNotFoundError, MomentIndexError
from videollm.media.decode_worker import close_server
from videollm.models import hub
from videollm.models.lf_vila import LfVilaForPreTraining
from videollm.moments.embed import load_sight_encoder
from videollm.moments.long_form import LongFormEncoder
from videollm.moments.store import MomentStore
from videollm.tools.index import LISTEN_QUESTION, LOOK_QUESTION, Crew, IndexSettings, index, look_at
from videollm.tools.narrators import ChatNarrator, Sentence, load_narrator
from videollm.tools.search import search

SETTINGS = IndexSettings(window_seconds=2.0, stride_seconds=2.0, batch_windows=2)


@pytest.fixture(scope="module", autouse=True)
def no_server_left() -> Iterator[None]:
    yield
    close_server()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films of one thing each, small."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(3):
        scene = kept_scene("one", "seen", number)
        write_scene(replace(scene, width_px=96, height_px=96, frame_rate=8.0), folder / f"{number}.mp4")
    return folder


@pytest.fixture(scope="module")
def random_crew(tmp_path_factory: pytest.TempPathFactory) -> Crew:
    """Random weights: what is told means nothing, but who told it is known."""
    narrator = ChatNarrator(*small_model(), identity="random")
    encoder = load_sight_encoder(dual_encoder_folder(tmp_path_factory.mktemp("encoder")), "cpu")
    return Crew(narrator.asking("a red circle?"), narrator.asking("a loud beep?"), encoder)


def listed(films: Path) -> list[Path]:
    return sorted(films.glob("*.mp4"))


def test_what_tiny_tells_is_found(films: Path, tmp_path: Path) -> None:
    tiny = load_narrator("tiny", device="cpu")
    assert isinstance(tiny, ChatNarrator)
    done = index(listed(films), tmp_path / "index", Crew(tiny.asking(LOOK_QUESTION), tiny.asking(LISTEN_QUESTION)))
    assert len(done.stored) == 3 and done.failed == ()
    store = MomentStore.open(tmp_path / "index")
    for number in range(3):
        (thing,) = kept_scene("one", "seen", number).things
        (best, *_) = store.search(f"{thing.colour} {thing.shape}")
        assert Path(best.path).name == f"{number}.mp4"
        assert thing.colour in best.narration and thing.shape in best.narration
    hits = store.search("circle square star triangle cross", limit=100)
    assert any("hear" in hit.sound.lower() for hit in hits)


def test_only_what_changed_is_read_again(films: Path, tmp_path: Path, random_crew: Crew) -> None:
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    into = tmp_path / "index"
    first = index(listed(folder), into, random_crew, SETTINGS)
    assert len(first.stored) == 3
    store = MomentStore.open(into)
    count, before = len(store), store.videos()
    again = index(listed(folder), into, random_crew, SETTINGS)
    assert len(again.unchanged) == 3 and not again.stored and store.videos() == before and len(store) == count
    shutil.copy(folder / "1.mp4", folder / "0.mp4")
    (folder / "2.mp4").unlink()
    third = index(listed(folder), into, random_crew, SETTINGS, prune=True)
    assert [Path(path).name for path in third.stored] == ["0.mp4"]
    assert [Path(path).name for path in third.removed] == ["2.mp4"]
    assert [Path(video.path).name for video in store.videos()] == ["0.mp4", "1.mp4"]
    other = index(listed(folder), into, random_crew, replace(SETTINGS, stride_seconds=1.0))
    assert len(other.stored) == 2, "other windows are another index of the same videos"


def test_what_lacks_moments_is_stored_again(films: Path, tmp_path: Path, random_crew: Crew) -> None:
    into = tmp_path / "index"
    index(listed(films), into, random_crew, SETTINGS)
    store = MomentStore.open(into)
    count, lacking = len(store), store.videos()[1]
    store._moments.delete(f"video = '{lacking.content}' AND start_seconds > 0")
    again = index(listed(films), into, random_crew, SETTINGS)
    assert again.stored == (lacking.path,) and len(again.unchanged) == 2 and len(store) == count


def test_nothing_of_a_window_is_kept(films: Path, random_crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a film is, its pictures and sounds are gone when they have been told of."""
    clips: list[weakref.ref[Clip]] = []
    alive: list[int] = []

    def described(self: ChatNarrator, shown: Sequence[Clip], candidates: int, seed: int) -> list[list[Sentence]]:
        clips.extend(map(weakref.ref, shown))
        return describe(self, shown, candidates, seed)

    describe = ChatNarrator.describe
    monkeypatch.setattr(ChatNarrator, "describe", described)
    looked = look_at(
        listed(films)[0], {}, Crew(random_crew.narrator), replace(SETTINGS, stride_seconds=1.0, batch_windows=1),
        progress=lambda done, total: alive.append(sum(clip() is not None for clip in clips)),
    )  # fmt: skip
    assert len(looked.moments) == len(clips) == len(alive) > 2 and not any(alive)


def test_vectors_of_windows(films: Path, tmp_path: Path, random_crew: Crew) -> None:
    index(listed(films), tmp_path / "index", random_crew, SETTINGS)
    store, encoder = MomentStore.open(tmp_path / "index"), random_crew.encoder
    assert encoder is not None
    store.check_encoder("seen", encoder.name)
    vector = encoder.words("the door opens")
    assert vector.shape == (encoder.width,) and np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    hits = store.search(vectors={"seen": vector}, limit=100)
    assert len(hits) == len(store) and all(set(hit.why) == {"seen"} for hit in hits)
    with pytest.raises(MomentIndexError, match="search with the encoder that made the index, or with words alone"):
        store.check_encoder("seen", "another")
    with pytest.raises(MomentIndexError, match="use the same, or make another index"):
        index([], tmp_path / "index", Crew(random_crew.narrator))


def test_windows_within_the_stretch_around_them(films: Path, tmp_path: Path, random_crew: Crew) -> None:
    processor = small_processor(tmp_path)
    long = LongFormEncoder(long_model(LfVilaForPreTraining), processor, "small")
    index(listed(films)[:1], tmp_path / "index", replace(random_crew, long=long), SETTINGS)
    store = MomentStore.open(tmp_path / "index")
    hits = search(store, "a red circle", encoder=random_crew.encoder, long=long, limit=100)
    assert len(hits) == len(store) and all({"seen", "long"} <= set(hit.why) for hit in hits)
    with pytest.raises(MomentIndexError, match="search with the encoder that made the index"):
        search(store, "a red circle", long=LongFormEncoder(long.model, long.processor, "another"))


def test_a_broken_video_does_not_stop_the_others(films: Path, tmp_path: Path, random_crew: Crew) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    told: list[str] = []
    done = index([broken, listed(films)[0]], tmp_path / "index", random_crew, SETTINGS, report=told.append)
    assert len(done.stored) == 1 and done.failed[0][0] == str(broken)
    assert len(told) == 1 and "broken.mp4" in told[0] and "\n" not in told[0]


def test_progress_counts_windows(films: Path, tmp_path: Path, random_crew: Crew) -> None:
    seen: list[tuple[int, int]] = []
    index(listed(films)[:1], tmp_path / "index", random_crew, SETTINGS, progress=lambda _: lambda *at: seen.append(at))
    total = MomentStore.open(tmp_path / "index").videos()[0].moments
    assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize("window, stride", [(4, 0), (4, 5), (0, 0), (float("nan"), 1), (float("inf"), 1), (4, -1)])
def test_windows_that_make_no_sense(window: float, stride: float) -> None:
    with pytest.raises(ConfigError, match="leave gaps or make no sense"):
        IndexSettings(window, stride)


def test_an_encoder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no dual encoder in"):
        load_sight_encoder(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no dual encoder in"):
        load_sight_encoder(hub.EMBEDDED["tiny"])
