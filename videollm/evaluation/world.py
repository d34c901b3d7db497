"""A benchmark from its films to its tables: films are shared out among processes, answers are kept as they come.

A stopped run goes on where it stopped: each finished portion is a file in the output folder, and is used again when the
benchmark and the model's files are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from videollm.chat.batch import CLIP, Predictor, Prompt, Shown
from videollm.clips import Clip
from videollm.data import dialogue as talk
from videollm.errors import ConfigError, VideoLLMError
from videollm.evaluation.benchmark import WorldBenchmark
from videollm.evaluation.films import (
    Asked,
    Film,
    ask_film,
    films_of,
    plan,
    read_film,
    with_frames_reversed,
    without_sound,
)
from videollm.evaluation.qa import Item, cells, honesty, table
from videollm.messages import MediaPart, Message, assistant, user
from videollm.models import hub

FILMS_A_PORTION = 8


@dataclasses.dataclass(frozen=True)
class Portion:
    """Some films with their share of questions."""

    number: int
    films: tuple[tuple[Film, dict[str, float]], ...]
    sound_each: dict[str, float]


def evaluate_world(benchmark: WorldBenchmark, out: Path, report: Callable[[str], None] = print) -> list[Item]:
    """Run a benchmark, print its tables, and write ``predictions.jsonl`` and ``scores.json`` into ``out``.

    Args:
        benchmark: what to measure.
        out: folder of the results; made if it is missing.
        report: gets the text of the report.

    Raises:
        ConfigError: the folder cannot be made.
        ModelNotFoundError: no such model.
    """
    started = time.monotonic()
    folder = hub.find(benchmark.model)
    portions = share_out(benchmark)
    try:
        out.mkdir(parents=True, exist_ok=True)
        parts = _parts_folder(out, benchmark, folder)
    except OSError as error:
        raise ConfigError(f"results cannot be written to {out} ({error}); give another folder with --out") from None
    waiting = [portion for portion in portions if not _part(parts, portion.number).exists()]
    films = sum(len(portion.films) for portion in portions)
    with _progress(len(portions), len(portions) - len(waiting)) as step:
        for number, items in _answers(benchmark, waiting):
            _write_part(_part(parts, number), items)
            step()
    items = [Item(**line) for portion in portions for line in _read_part(_part(parts, portion.number))]
    _write_results(out, benchmark, items)
    shutil.rmtree(parts)
    rows = (*benchmark.kinds, "sound", "outside")
    found = cells(items)
    for condition in benchmark.conditions:
        if any(key[0] == condition for key in found):
            report(table(found, condition, rows, benchmark.questions) + "\n")
    for line in honesty(items):
        report(line)
    minutes = (time.monotonic() - started) / 60
    report(
        f"{len(items)} questions about {films} films in {minutes:.1f} min; "
        f"each answer is in {out / 'predictions.jsonl'}"
    )
    return items


def share_out(benchmark: WorldBenchmark) -> list[Portion]:
    """The benchmark's films in portions, each film with the number of questions of each type."""
    films = films_of(benchmark.kinds, benchmark.conditions, benchmark.first_film, benchmark.films)
    groups: dict[tuple[str, str], list[Film]] = {}
    for film in films:
        groups.setdefault((film.kind, film.split), []).append(film)
    each = {key: plan(group, benchmark.questions) for key, group in groups.items()}
    sound = plan([film for film in films if film.split == "seen"], benchmark.questions)
    sound_each = {kind: count for kind, count in sound.items() if kind in talk.SOUND_TYPES}
    return [
        Portion(
            number,
            tuple((film, each[film.kind, film.split]) for film in films[start : start + FILMS_A_PORTION]),
            sound_each,
        )
        for number, start in enumerate(range(0, len(films), FILMS_A_PORTION))
    ]


class Examiner:
    """Puts the questions of portions of films to a model."""

    def __init__(self, benchmark: WorldBenchmark) -> None:
        self.benchmark = benchmark
        model, processor = hub.load(benchmark.model, device="cpu" if benchmark.workers > 1 else None)
        self.predictor = Predictor(
            model, processor, max_new_tokens=benchmark.max_new_tokens, batch_rows=benchmark.batch_rows
        )
        self.films_folder = None
        if benchmark.films_folder is not None:
            self.films_folder = Path(benchmark.films_folder)
            self.films_folder.mkdir(parents=True, exist_ok=True)

    def examine(self, portion: Portion) -> list[Item]:
        """Make the films, ask, and pair each answer with its truth."""
        clips = [read_film(film, self.predictor.processor, self.films_folder) for film, _ in portion.films]
        asked: list[tuple[int, Asked]] = []
        for place, ((film, each), clip) in enumerate(zip(portion.films, clips, strict=True)):
            assert clip.frames is not None
            picture = talk.measure(clip.frames.pixels)
            asked += [
                (place, one) for one in ask_film(film, picture, self.benchmark.conditions, each, portion.sound_each)
            ]
        shown = self._views(clips, {(place, one.muted, one.reversed) for place, one in asked})
        first = [
            Prompt(shown[place, one.muted, one.reversed], opening(one.follows if one.follows else one.question))
            for place, one in asked
        ]
        answers = self.predictor.answer(first)
        follow = [index for index, (_, one) in enumerate(asked) if one.follows]
        second = [
            Prompt(
                first[index].shown,
                (
                    *first[index].messages,
                    assistant(answers[index].text, answers[index].token_ids),
                    user(asked[index][1].question),
                ),
            )
            for index in follow
        ]
        for index, answer in zip(follow, self.predictor.answer(second), strict=True):
            answers[index] = answer
        return [
            Item(
                one.condition,
                one.row,
                one.type,
                portion.films[place][0].name,
                one.question,
                one.truth,
                answer.text,
                one.unchanged_truth,
            )
            for (place, one), answer in zip(asked, answers, strict=True)
        ]

    def _views(self, clips: Sequence[Clip], views: set[tuple[int, bool, bool]]) -> dict[tuple[int, bool, bool], Shown]:
        """The clips as they are, muted, or reversed; removing the sound leaves what is seen as it was."""
        encoded = sorted({(place, False, backwards) for place, _, backwards in views})
        as_shown = [
            with_frames_reversed(clips[place]) if backwards else clips[place] for place, _, backwards in encoded
        ]
        shown = dict(zip(encoded, self.predictor.show(as_shown), strict=True))
        for place, muted, backwards in views:
            if muted:
                heard = shown[place, False, backwards]
                shown[place, True, backwards] = Shown(without_sound(heard.clip), heard.video, None)
        return shown


def opening(question: str) -> tuple[Message, ...]:
    """A conversation of one question about one clip."""
    return (user(question, [MediaPart(CLIP)]),)


# --- processes --------------------------------------------------------------------------------------------------------

_examiner: Examiner | None = None


def _start(benchmark: WorldBenchmark) -> None:
    global _examiner
    torch.set_num_threads(1)
    _examiner = Examiner(benchmark)


def _examine(portion: Portion) -> tuple[int, list[Item]]:
    assert _examiner is not None
    return portion.number, _examiner.examine(portion)


def _answers(benchmark: WorldBenchmark, portions: Sequence[Portion]) -> Iterator[tuple[int, list[Item]]]:
    """Portions as they are finished."""
    if not portions:
        return
    workers = min(benchmark.workers, len(portions))
    if workers == 1:
        examiner = Examiner(benchmark)
        for portion in portions:
            yield portion.number, examiner.examine(portion)
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(benchmark,))
    try:
        for done in as_completed([pool.submit(_examine, portion) for portion in portions]):
            yield done.result()
    except BrokenProcessPool:
        raise VideoLLMError(
            "a process of the evaluation died (out of memory?); what is finished is kept: run the same command again, "
            "or with --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = threads


@contextlib.contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[], None]]:
    """A line on stderr that counts portions, on a terminal only."""
    started, first = time.monotonic(), done

    def step() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            left = (time.monotonic() - started) / max(1, done - first) * (total - done)
            print(f"\r{done} of {total} portions, {left / 60:.1f} min left ", end="", file=sys.stderr, flush=True)

    try:
        yield step
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)


# --- files ------------------------------------------------------------------------------------------------------------


def _parts_folder(out: Path, benchmark: WorldBenchmark, model_folder: Path) -> Path:
    """Where finished portions lie; emptied when they are of another benchmark or model."""
    digest = hashlib.sha256(repr(dataclasses.replace(benchmark, workers=1)).encode())
    for file in sorted(model_folder.glob("*")):
        if file.suffix in (".safetensors", ".json", ".jinja"):
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    parts = out / "parts"
    mark = parts / "of.txt"
    if not mark.exists() or mark.read_text() != digest.hexdigest():
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        mark.write_text(digest.hexdigest())
    return parts


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:05d}.jsonl"


def _write_part(path: Path, items: Sequence[Item]) -> None:
    staging = path.with_suffix(".tmp")
    staging.write_text("".join(json.dumps(dataclasses.asdict(item)) + "\n" for item in items), encoding="utf-8")
    os.replace(staging, path)


def _read_part(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_results(out: Path, benchmark: WorldBenchmark, items: Sequence[Item]) -> None:
    write_predictions(out / "predictions.jsonl", items)
    scores = [
        {"condition": key[0], "row": key[1], "type": key[2], **dataclasses.asdict(cell)}
        for key, cell in cells(items).items()
    ]
    text = json.dumps(
        {"benchmark": dataclasses.asdict(benchmark), "cells": scores, "honesty": honesty(items)}, indent=1
    )
    (out / "scores.json").write_text(text + "\n", encoding="utf-8")


def write_predictions(path: Path, items: Sequence[Item]) -> None:
    """One JSON line a question: everything about it, its answer, and whether that is right."""
    path.write_text("".join(json.dumps(item.as_json()) + "\n" for item in items), encoding="utf-8")
