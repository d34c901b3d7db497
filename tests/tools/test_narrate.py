"""Narrations of real files: at the right times, in whole files, and the same wherever the work was interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from transformers.utils.chat_template_utils import get_json_schema

from tests.media.numbered import numbered_frames, tones
from tests.small_model import small_model
from tests.tools import small_lavila
from tests.tools.test_subtitles import read_back
from videollm.errors import ConfigError, MediaError, MediaUnreadableError
from videollm.evaluation.known_scenes import KnownScene, film_of, is_found, is_true
from videollm.media.decode_worker import close_server
from videollm.media.write import write_sound, write_video
from videollm.tools.narrate import (
    Narration,
    NarrationSettings,
    _merged,
    _placed,
    alike,
    clock,
    narrate,
    narrate_files,
    plan_outputs,
    videos_in,
)
from videollm.tools.narrators import ChatNarrator, load_narrator, load_rephraser, load_scorer


@pytest.fixture(scope="module")
def narrator() -> ChatNarrator:
    return ChatNarrator(*small_model(), question="what is in the video?", max_new_tokens=8, identity="small")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10.5 s of noise that changes every second, and a sound."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (11, 3, 4, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, (coarse[i // 8] for i in range(84)), fps=8, waveform=tones(10.5))


@pytest.fixture(autouse=True, scope="module")
def no_server_left() -> Iterator[None]:
    yield
    close_server()


# -- spans -------------------------------------------------------------------------------------------------------------


def said(*texts: str, similarities: Any = None) -> list[dict[str, Any]]:
    """Windows of which these things are said; nothing of those with no words."""
    rows = [{"text": text} | ({"similarity": similarities[i]} if similarities else {}) for i, text in enumerate(texts)]
    return [{"window": i, "kept": [row]} for i, row in enumerate(rows) if row["text"]]


def spans(found: list[dict[str, Any]], windows: list[tuple[float, float]], repeats: float = 1.0) -> list[tuple]:
    merged = _merged(_placed(found, windows), repeats)
    return [(one.start_seconds, one.end_seconds, one.text) for one in merged]


def test_windows_side_by_side() -> None:
    windows = [(0.0, 4.0), (4.0, 8.0), (8.0, 9.5)]
    assert spans(said("a", "b", "c"), windows) == [(0, 4, "a"), (4, 8, "b"), (8, 9.5, "c")]
    assert spans(said("a cat.", "The cat", "c"), windows) == [(0, 8, "a cat."), (8, 9.5, "c")]
    assert spans(said("a", "", "a"), windows) == [(0, 4, "a"), (8, 9.5, "a")], "of the window between nothing is known"


def test_overlapping_windows_tell_of_their_middles() -> None:
    windows = [(0.0, 4.0), (1.0, 5.0), (2.0, 6.0), (3.0, 6.5)]
    assert spans(said("a", "b", "c", "d"), windows) == [
        (0, 2.5, "a"),
        (2.5, 3.5, "b"),
        (3.5, 4.5, "c"),
        (4.5, 6.5, "d"),
    ]
    assert spans(said("a", "a", "c", "c"), windows) == [(0, 3.5, "a"), (3.5, 6.5, "c")]


def test_windows_with_gaps_are_not_one() -> None:
    assert spans(said("a", "a"), [(0.0, 1.0), (5.0, 6.0)]) == [(0, 1, "a"), (5, 6, "a")]


def test_answers_with_seconds_are_several() -> None:
    text = "0.0 s: a red star stays still. 1.5 s: a blue cross appears at the 2 s: mark."
    windows = [(0.0, 4.0), (4.0, 8.0)]
    assert spans(said("0.0 s: here.", text), windows) == [
        (0, 4, "here."), (4, 5.5, "a red star stays still."), (5.5, 6, "a blue cross appears at the"), (6, 8, "mark."),
    ]  # fmt: skip
    # What lies in the neighbour's half is the neighbour's to tell.
    overlapping = [(0.0, 4.0), (2.0, 6.0)]
    assert spans(said("0.0 s: one. 3.5 s: two.", "0.5 s: three. 1.5 s: four."), overlapping) == [
        (0, 3, "one."), (3, 3.5, "three."), (3.5, 6, "four."),
    ]  # fmt: skip
    assert spans(said("it is 2.0 s: no time", "b"), windows)[0] == (0, 4, "it is 2.0 s: no time")


def test_what_counts_as_a_repeat() -> None:
    assert alike("#C C picks the knife", "C picks a Knife.") == 1
    assert alike("a red circle moves left", "a red circle moves right") == 0.75
    assert alike("it opens a door", "a dog barks") == 0
    windows = [(0.0, 4.0), (4.0, 8.0)]
    assert len(spans(said("a red circle moves left", "a red circle moves right"), windows)) == 2
    assert len(spans(said("a red circle moves left", "a red circle moves right"), windows, repeats=0.7)) == 1
    # The words of the one that fits best.
    better = said("the dog", "a dog", similarities=[0.5, 0.9])
    (one,) = _merged(_placed(better, windows), 1.0)
    assert (one.text, one.similarity, one.end_seconds) == ("a dog", 0.9, 8)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (12.04, "0:12"), (59.96, "1:00"), (0.5, "0:00.5"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"stride_seconds": 0.0}, r"the stride must be at least 0\.05 seconds, found 0"),
        ({"window_seconds": -1.0}, "the window must be at least"),
        ({"window_seconds": float("nan")}, "the window must be at least"),
        ({"start_seconds": 5.0, "end_seconds": 5.0}, "starts at 0 or later and ends after that, found 5 to 5"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"top_k": 3, "candidates": 2}, "3 of 2 candidates cannot be kept"),
        ({"threshold": 1.5}, "a cosine similarity from -1 to 1"),
        ({"repeats": 0.0}, "a likeness above 0"),
        ({"seed": -1}, "the seed must be"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        NarrationSettings(**wrong)


# -- of files ----------------------------------------------------------------------------------------------------------


def test_times_are_those_of_the_scenes(tmp_path: Path) -> None:
    """tiny on 40 s of scenes, 3 to 8 s each: every scene found, times within half a window, and nine narrations in ten
    name what is there; `tiny` itself errs more often than that in longer films (see the half hour below)."""
    truth: list[KnownScene] = []
    path = write_video(tmp_path / "film.mp4", film_of(40, 8, truth), fps=8)
    found = list(narrate(path, window_seconds=4.0))
    assert all(a.end_seconds <= b.start_seconds + 1e-6 for a, b in pairwise(found))
    assert found[0].start_seconds == 0 and found[-1].end_seconds == pytest.approx(truth[-1].end_seconds, abs=0.01)
    assert [scene for scene in truth if not is_found(scene, found, 2.0)] == []
    wrong = [one for one in found if not is_true(one, truth)]
    assert len(wrong) <= len(found) / 10, wrong


def test_a_stretch_and_a_window_longer_than_the_video(film: Path, narrator: ChatNarrator) -> None:
    (one,) = narrate(film, narrator, window_seconds=600)
    assert (one.start_seconds, one.end_seconds) == (0, pytest.approx(10.5, abs=0.06)) and one.text
    part = list(narrate(film, narrator, window_seconds=2, start_seconds=3, end_seconds=8))
    assert part[0].start_seconds == 3 and part[-1].end_seconds == 8
    told: list[tuple[int, int]] = []
    list(narrate(film, narrator, window_seconds=1, batch_windows=4, progress=lambda *done: told.append(done)))
    assert told == [(0, 11), (4, 11), (8, 11), (11, 11)]


def test_each_shot_is_told_by_itself(film: Path, narrator: ChatNarrator) -> None:
    told: list[tuple[int, int]] = []
    options: dict[str, Any] = {"cuts": True, "batch_windows": 1, "progress": lambda *done: told.append(done)}
    found = list(narrate(film, narrator, window_seconds=8, start_seconds=2.5, end_seconds=6.25, **options))
    assert told[-1] == (5, 5), "2.5-3, 3-4, 4-5, 5-6, 6-6.25"
    assert {one.start_seconds for one in found} <= {2.5, 3, 4, 5, 6} and found[-1].end_seconds == 6.25


def test_sound_alone(tmp_path: Path, narrator: ChatNarrator) -> None:
    path = write_sound(tmp_path / "sound.wav", tones(5.0))
    assert [one.end_seconds for one in narrate(path, narrator, repeats=1.0)][-1] == 5
    deaf = ChatNarrator(*small_model(ears=False), question="what is in the video?")
    with pytest.raises(MediaUnreadableError, match=r"sound\.wav: this is a sound, and the narrator has no ear"):
        list(narrate(path, deaf))


SETTINGS = NarrationSettings(window_seconds=0.5, batch_windows=3)


class Stopped(BaseException):
    """Stands for a kill: nothing in between catches it."""


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run_until(batches: int, film: Path, out: Path, staff: dict[str, Any], settings: NarrationSettings) -> int:
    """Narrates until so many batches are done in this run; how many windows were done at its start."""
    began: list[int] = []

    def progress(job: Any) -> Any:
        def told(done: int, total: int) -> None:
            began.append(done)
            if len(began) > batches:
                raise Stopped

        return told

    with suppress(Stopped):
        narrate_files(plan_outputs(videos_in([film]), out), settings=settings, progress=progress, **staff)
    return began[0]


@pytest.mark.parametrize("kind", ["chat", "cuts", "lavila"])
def test_interrupted_anywhere_the_result_is_the_same(
    film: Path, narrator: ChatNarrator, tmp_path: Path, kind: str
) -> None:
    staff: dict[str, Any] = {"narrator": narrator}
    settings = replace(SETTINGS, window_seconds=0.4, cuts=True) if kind == "cuts" else SETTINGS
    if kind == "lavila":
        staff = {
            "narrator": load_narrator(small_lavila.narrator_folder(tmp_path / "n"), device="cpu"),
            "scorer": load_scorer(small_lavila.dual_encoder_folder(tmp_path / "s"), device="cpu"),
            "rephraser": load_rephraser(small_lavila.rephraser_folder(tmp_path / "r"), device="cpu"),
        }
        # Fewer beams and words than published.
        staff["rephraser"].rephrase = partial(staff["rephraser"].rephrase, groups=4, max_tokens=12)
        settings = NarrationSettings(window_seconds=0.5, batch_windows=3, candidates=4, top_k=2, threshold=-1.0)
    whole = tmp_path / "whole"
    whole.mkdir()
    run_until(99, film, whole / "film.jsonl", staff, settings)
    expected = outputs(whole)
    assert list(expected) == ["film.jsonl"] and expected["film.jsonl"].count(b"\n") >= 5
    broken = tmp_path / "broken"
    broken.mkdir()
    starts = []
    for run in range(20):
        starts.append(run_until(2, film, broken / "film.jsonl", staff, settings))
        if outputs(broken) == expected:
            break
        (journal,) = broken.glob(".film.jsonl.unfinished")
        if run == 1:  # and killed in the middle of a line
            journal.write_bytes(journal.read_bytes() + b'{"next": 12, "win')
        if run == 2:
            journal.write_bytes(journal.read_bytes()[:-9])
    assert outputs(broken) == expected
    assert starts[:3] == [0, 6, 12] and len(starts) >= 4, "it did not go on"
    lines = [json.loads(line) for line in expected["film.jsonl"].splitlines()]
    if kind == "lavila":
        assert all(-1 <= line["similarity"] <= 1 and line["perplexity"] >= 1 for line in lines)
        assert any("others" in line for line in lines) and any("rephrased" in line for line in lines)


def test_other_settings_start_anew(film: Path, narrator: ChatNarrator, tmp_path: Path) -> None:
    out = tmp_path / "film.jsonl"
    assert run_until(2, film, out, {"narrator": narrator}, SETTINGS) == 0
    notes: list[str] = []
    staff = {"narrator": narrator, "report": notes.append}
    assert run_until(1, film, out, staff, NarrationSettings(window_seconds=0.7)) == 0
    assert run_until(1, film, out, staff, NarrationSettings(window_seconds=0.7, cuts=True)) == 0
    assert len(notes) == 2 and all("starts anew" in note for note in notes)


def test_the_best_of_the_candidates_is_kept(film: Path, tmp_path: Path) -> None:
    narrator = load_narrator(small_lavila.narrator_folder(tmp_path / "n"), device="cpu")
    scorer = load_scorer(small_lavila.dual_encoder_folder(tmp_path / "s"), device="cpu")
    options: dict[str, Any] = {"window_seconds": 1.0, "scorer": scorer, "candidates": 6, "repeats": 1.0}
    best = list(narrate(film, narrator, **options, threshold=-1.0))
    kept = list(narrate(film, narrator, **options, threshold=-1.0, top_k=6))
    assert [one.text for one in best] == [one.text for one in kept] and all(one.similarity is not None for one in best)
    assert any(one.others for one in kept) and all(one.text not in one.others for one in kept)
    values = sorted(one.similarity for one in best if one.similarity is not None)
    middle = values[len(values) // 2]
    some = list(narrate(film, narrator, **options, threshold=middle))
    assert 0 < len(some) < len(best) and all(one.similarity is not None and one.similarity >= middle for one in some)
    assert list(narrate(film, narrator, **options)) == list(narrate(film, narrator, **options, threshold=0.5))
    with pytest.raises(ConfigError, match="6 candidates need something that chooses"):
        narrate(film, narrator, candidates=6)
    with pytest.raises(ConfigError, match="a threshold needs a scorer"):
        narrate(film, narrator, threshold=0.2)


# -- into files --------------------------------------------------------------------------------------------------------


def test_a_folder(film: Path, narrator: ChatNarrator, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    (videos / "inner").mkdir(parents=True)
    for name in ("one.mp4", "inner/one.mp4", "inner/one.mov", "no suffix"):
        (videos / name).write_bytes(film.read_bytes())
    (videos / "notes.txt").write_text("no video")
    (videos / ".hidden.mp4").write_bytes(film.read_bytes())
    (videos / "zz broken.mp4").write_bytes(film.read_bytes()[:2000])
    jobs = plan_outputs(videos_in([videos]), out)
    assert [job.name for job in jobs] == ["inner/one.mov", "inner/one.mp4", "no suffix", "one.mp4", "zz broken.mp4"]
    ((job, error),) = narrate_files(jobs, narrator, NarrationSettings(window_seconds=2.0))
    assert job.name == "zz broken.mp4" and isinstance(error, MediaError)
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    stems = ["inner/one.mov", "inner/one.mp4", "no suffix", "one"]
    assert made == sorted(stem + suffix for stem in stems for suffix in (".jsonl", ".srt", ".vtt"))
    lines = [json.loads(line) for line in (out / "inner/one.mp4.jsonl").read_text().splitlines()]
    assert {line["video"] for line in lines} == {"inner/one.mp4"}
    for suffix in (".srt", ".vtt"):
        cues = read_back(out / f"one{suffix}")
        assert [cue[:2] for cue in cues] == [
            (round(line["start_seconds"] * 1000), round(line["end_seconds"] * 1000)) for line in lines
        ]
    # Again: what is there is left as it is; what was made in another way, or is missing, is made.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (out / "no suffix.vtt").unlink()
    notes: list[str] = []
    narrate_files(jobs, narrator, NarrationSettings(window_seconds=2.0), report=notes.append)
    assert sum("narrated already" in note for note in notes) == 3
    changed = {path.name for path, at in before.items() if path.exists() and path.stat().st_mtime_ns != at}
    assert changed == {"no suffix.jsonl", "no suffix.srt", "no suffix.vtt"}
    narrate_files(jobs[:1], narrator, NarrationSettings(window_seconds=3.0))
    assert len((out / "inner/one.mov.jsonl").read_text().splitlines()) < len(lines)


def test_several_videos_into_one_file(film: Path, narrator: ChatNarrator, tmp_path: Path) -> None:
    other = write_video(tmp_path / "other.mp4", numbered_frames(20), fps=10)
    out = tmp_path / "all.jsonl"
    assert narrate_files(plan_outputs(videos_in([film, other]), out), narrator, SETTINGS) == []
    names = [json.loads(line)["video"] for line in out.read_text().splitlines()]
    assert list(dict.fromkeys(names)) == ["film.mp4", "other.mp4"]
    assert {path.name for path in tmp_path.iterdir()} == {"all.jsonl", "other.mp4"}


def test_outputs_that_cannot_be(film: Path, tmp_path: Path) -> None:
    one = videos_in([film])
    for out, match in (
        (tmp_path / "a.txt", r"'a\.txt'; name a \.jsonl, \.srt or \.vtt file"),
        (tmp_path / "no" / "a.srt", "there is no folder"),
        (film / "a.srt", "there is no folder"),
        (film / "a" / "", "cannot write into"),
    ):
        with pytest.raises(ConfigError, match=match):
            plan_outputs(one, f"{out}/" if out.name == "a" else out)
    with pytest.raises(ConfigError, match="can hold one video, not 2"):
        plan_outputs(one * 2, tmp_path / "a.srt")
    with pytest.raises(ConfigError, match="two of the videos have the same name"):
        plan_outputs(one * 2, tmp_path / "out")
    with pytest.raises(ConfigError, match="no video in the folder"):
        videos_in([tmp_path])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_that_cannot_be_read(narrator: ChatNarrator, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    with pytest.raises(MediaUnreadableError):
        narrate_files(plan_outputs(videos_in([broken]), tmp_path / "out.srt"), narrator, SETTINGS)
    assert list(tmp_path.iterdir()) == [broken]


def test_one_process_at_a_time(film: Path, narrator: ChatNarrator, tmp_path: Path) -> None:
    jobs = plan_outputs(videos_in([film]), tmp_path / "out.srt")

    def progress(job: Any) -> Any:
        def told(done: int, total: int) -> None:
            if done:
                with pytest.raises(ConfigError, match="another process is writing"):
                    narrate_files(jobs, narrator, SETTINGS)

        return told

    narrate_files(jobs, narrator, SETTINGS, progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["out.srt"]


def _grown(path: Path, narrator: ChatNarrator) -> tuple[int, int]:
    """Windows of a file, and by how much this process grew between the first batches and the last, bytes."""
    process, sizes = psutil.Process(), []
    settings = NarrationSettings(window_seconds=4.0)
    jobs = plan_outputs(videos_in([path]), path.with_suffix(".jsonl"))
    counts: list[int] = []

    def progress(job: Any) -> Any:
        return lambda done, total: (sizes.append(process.memory_info().rss), counts.append(total))

    narrate_files(jobs, narrator, settings, progress=progress)
    return counts[-1], max(sizes) - sizes[min(3, len(sizes) - 1)]


def test_memory_does_not_grow_with_the_length(narrator: ChatNarrator, tmp_path: Path) -> None:
    frames = numbered_frames(64)
    path = write_video(tmp_path / "long.mp4", (frames[i // 20 % 64] for i in range(1280)), fps=4, preset="ultrafast")
    count, grown = _grown(path, narrator)
    assert count == 80 and grown < 40e6


def test_a_tool_of_a_chat_can_call_it(film: Path, narrator: ChatNarrator) -> None:
    def tell(video: str, start_seconds: float = 0.0, end_seconds: float | None = None) -> str:
        """Tell what happens in a stretch of a video, with times.

        Args:
            video: The video's file.
            start_seconds: Where to begin.
            end_seconds: Where to end.
        """
        found = narrate(video, narrator, start_seconds=start_seconds, end_seconds=end_seconds)
        return "\n".join(map(str, found))

    schema = get_json_schema(tell)["function"]["parameters"]
    assert set(schema["properties"]) == {"video", "start_seconds", "end_seconds"} and schema["required"] == ["video"]
    assert tell(str(film), 4.0, 8.0).startswith("[0:04-0:08] ")


def test_how_a_narration_is_written() -> None:
    one = Narration(12.0, 16.0, "a dog.", 0.5, None, (), ("the dog",))
    assert str(one) == "[0:12-0:16] the dog"
    assert one.to_json() == {
        "start_seconds": 12.0, "end_seconds": 16.0, "text": "a dog.", "similarity": 0.5, "rephrased": ("the dog",),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_half_an_hour_of_known_scenes() -> None:
    """95 % of scenes found within half a window, 95 % of spans true, memory within 200 MB of that for 3 minutes, and
    the same file after a kill: the script fails where one of them is missed."""
    script = Path(__file__).parent.parent.parent / "scripts" / "bench" / "narration.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
