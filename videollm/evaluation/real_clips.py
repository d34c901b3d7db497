"""Questions about anybody's videos whose truth can be computed from pixels and samples.

`videollm.data.attributes` says what is true of the very frames and sound that the model is shown, and how clearly; only
what is clear is asked. Beside that: does a description name a drawn thing where the world's things are absent, and are
questions outside the world refused?
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videollm.chat.batch import Predictor, Prompt
from videollm.clips import Clip
from videollm.data import attributes
from videollm.data import dialogue as talk
from videollm.data.wordings import WORDINGS
from videollm.data.world import COLOURS, SHAPES, TIMED_SECONDS, half_second
from videollm.errors import ConfigError, MediaError
from videollm.evaluation.benchmark import WorldBenchmark
from videollm.evaluation.qa import Item, cells, invents, refuses
from videollm.evaluation.world import opening, write_predictions
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.models import hub

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
QUESTIONS_A_CLIP = 20

# How clear an attribute must be before it is asked about, in the units of its margin.
COLOUR_MARGIN = talk.MAIN_COLOUR_MARGIN  # share of the picture
BRIGHTNESS_MARGIN = 8.0  # levels
MOTION_MARGIN = 0.5  # of 1
LOUDNESS_MARGIN_DB = 3.0
TONAL_MARGIN = 0.08  # flatness
CUT_TIME_MARGIN = 0.06  # seconds from where the half second would change

EXISTENCE, DESCRIPTION, OUTSIDE = "exist", "caption", "outside"


@dataclass(frozen=True)
class Truths:
    """What is clear about a clip: (type, answer); and what is not: types."""

    clear: tuple[tuple[str, str], ...]
    unclear: tuple[str, ...]


def truths(clip: Clip) -> Truths:
    """What `attributes` can say clearly about the frames and sound of a clip."""
    clear: dict[str, str] = {}
    asked: list[str] = []

    def judge(kind: str, answer: str, is_clear: bool) -> None:
        asked.append(kind)
        if is_clear:
            clear[kind] = answer[:1].upper() + answer[1:] + "."

    if clip.frames is not None:
        pixels, seconds = clip.frames.pixels, clip.frames.seconds
        colour, margin = attributes.main_colour(pixels)
        judge("main_colour", colour, margin >= COLOUR_MARGIN)
        light, levels = attributes.brightness(pixels)
        judge("brightness", light, levels >= BRIGHTNESS_MARGIN)
        found = attributes.cuts(pixels, seconds)
        motion, margin = attributes.moves(pixels, seconds, found)
        # A cut is a change too: whether a still film with cuts "moves" is a matter of taste.
        judge("moves", "it moves" if motion else "it is still", margin >= MOTION_MARGIN and not found)
        name, margin = attributes.camera(pixels, seconds, found)
        words = {
            "in": "the picture zooms in",
            "out": "the picture zooms out",
            "still": "the picture stays still",
        }.get(name, f"the picture moves {name}")
        judge("camera", words, name != "unclear" and margin >= MOTION_MARGIN)
        number = talk.NUMBERS[min(len(found), 8)]
        judge("cut", f"{number} cut{'s' if len(found) > 1 else ''}", len(found) <= 2)
        if clip.duration_seconds <= TIMED_SECONDS:
            sure = [abs((second * 2) % 1 - 0.5) / 2 >= CUT_TIME_MARGIN for second in found]
            times = " and ".join(f"{half_second(second):.1f} s" for second in found)
            judge("cut_when", f"at {times}" if found else "there is no cut", len(found) <= 2 and all(sure))
        judge("count", "none of the shapes I know", True)
    _judge_sound(clip, judge)
    return Truths(tuple(clear.items()), tuple(kind for kind in asked if kind not in clear))


def _judge_sound(clip: Clip, judge: Callable[[str, str, bool], None]) -> None:
    if not clip.waveforms:
        for kind, answer in (
            ("silence", "no, there is no sound"),
            ("sound_loud", talk.NOTHING_HEARD[:-1]),
            ("onsets", "none"),
        ):
            judge(kind, answer, True)
        return
    rate = clip.waveforms[0].rate_hz
    pieces = [wave.samples.mean(0) for wave in clip.waveforms]
    samples = np.concatenate(pieces)
    level, decibels = attributes.loudness(samples, rate)
    sure = decibels >= LOUDNESS_MARGIN_DB
    silent = level == "silent"
    judge("silence", "no, there is no sound" if silent else "yes, there is sound", sure)
    judge("sound_loud", talk.NOTHING_HEARD[:-1] if silent else level, sure)
    if not silent:
        kind, margin = attributes.tonal(samples, rate)
        judge("tonal", kind, sure and margin >= TONAL_MARGIN)
    if len(pieces) == 1 and clip.windows_seconds[-1][1] >= clip.duration_seconds - 0.5:
        counts = {len(attributes.onsets(samples, rate, rise)) for rise in (6.0, 9.0, 12.0)}
        count = min(counts)
        answer = "none" if count == 0 or silent else talk.NUMBERS[min(count, 8)]
        judge("onsets", answer, sure and len(counts) == 1 and count <= 8)


def questions(clip: Clip, name: str, seed: int) -> tuple[list[Item], Truths]:
    """What is asked about a clip, not yet answered: half of each type in training wordings, half in new ones."""
    known = truths(clip)
    rng = np.random.default_rng([seed, 53])
    items: list[Item] = []
    each = max(4, math.ceil(QUESTIONS_A_CLIP / max(1, len(known.clear))))
    for kind, truth in known.clear:
        bank = WORDINGS[kind]
        for row, wordings in (("trained wordings", bank.train), ("new wordings", bank.test)):
            for place in rng.permutation(len(wordings))[: math.ceil(each / 2)].tolist():
                items.append(Item("computed", row, kind, name, wordings[place], truth, ""))
    if clip.frames is not None:
        bank = WORDINGS[DESCRIPTION]
        for row, wordings in (("trained wordings", bank.train), ("new wordings", bank.test)):
            for place in rng.permutation(len(wordings))[:4].tolist():
                items.append(Item("described", row, DESCRIPTION, name, wordings[place], "", ""))
        for row, wordings in (
            ("trained wordings", WORDINGS[EXISTENCE].train),
            ("new wordings", WORDINGS[EXISTENCE].test),
        ):
            for place in rng.permutation(len(wordings))[:3].tolist():
                thing = f"{rng.choice(COLOURS)} {rng.choice(SHAPES)}"
                words = wordings[place].format(a_thing=f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}")
                items.append(Item("drawn things", row, EXISTENCE, name, words, "No.", ""))
    for _ in range(4):
        kind, words, answer = talk.outside(rng, held_out=True)
        items.append(Item("outside", "new wordings", kind, name, words, answer, ""))
    return items, known


def evaluate_media(
    benchmark: WorldBenchmark, folder: Path, out: Path, report: Callable[[str], None] = print
) -> list[Item]:
    """Ask about every video in a folder, print the scores, and write ``media_predictions.jsonl`` into ``out``.

    Args:
        benchmark: names the model and its limits.
        folder: holds the videos; files of other kinds are passed over, files that cannot be read are named.
        out: folder of the results; made if it is missing.
        report: gets the text of the report.

    Raises:
        ConfigError: no such folder, no video in it, or none that can be read.
        ModelNotFoundError: no such model.
    """
    if not folder.is_dir():
        raise ConfigError(f"no folder {folder} to take videos from; give --media an existing folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ConfigError(f"no video in {folder} ({', '.join(SUFFIXES)}); give --media another folder")
    hub.find(benchmark.model)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"results cannot be written to {out} ({error}); give another folder with --out") from None

    processor: Any
    model, processor = hub.load(benchmark.model)
    predictor = Predictor(model, processor, max_new_tokens=benchmark.max_new_tokens, batch_rows=benchmark.batch_rows)
    frames, sound = FrameSampling(**processor.frame_sampling), SoundSampling(**processor.sound_sampling)
    items: list[Item] = []
    report("truth by the estimator of videollm/data/attributes.py, on the frames and sound that the model is shown\n")
    for number, path in enumerate(paths):
        try:
            clip = read_clip(path, frames=frames, sound=sound)
        except MediaError as error:
            report(f"{path.name}: passed over: {error}")
            continue
        asked, known = questions(clip, path.name, number)
        (shown,) = predictor.show([clip])
        answers = predictor.answer([Prompt(shown, opening(item.question)) for item in asked])
        mine = [
            Item(item.condition, item.row, item.type, item.film, item.question, item.truth, answer.text)
            for item, answer in zip(asked, answers, strict=True)
        ]
        items += mine
        computed = [item for item in mine if item.condition == "computed"]
        right = sum(item.right for item in computed)
        report(f"{path.name}: {right} of {len(computed)} right")
        report("  " + "; ".join(f"{kind}: {answer}" for kind, answer in known.clear))
        if known.unclear:
            report(f"  not clear, not asked: {', '.join(known.unclear)}")
        described = next((item.answer for item in mine if item.condition == "described"), None)
        if described is not None:
            report(f"  described as: {described}")
    if not items:
        raise ConfigError(f"no video in {folder} could be read; see the lines above")
    write_predictions(out / "media_predictions.jsonl", items)
    for line in summary(items):
        report(line)
    report(f"each answer is in {out / 'media_predictions.jsonl'}")
    return items


def summary(items: list[Item]) -> list[str]:
    """The report on all clips together: scores by type, inventions and refusals, each with its counts."""
    lines = ["", f"{'computed attributes':<20}{'score':<8}{'baseline':<10}{'questions':<11}clips"]
    computed = [item for item in items if item.condition == "computed"]
    merged = cells(Item(i.condition, "all", i.type, i.film, i.question, i.truth, i.answer) for i in computed)
    for (_, _, kind), cell in merged.items():
        lines.append(f"{kind:<20}{cell.score:<8.2f}{cell.baseline:<10.2f}{cell.count:<11}{cell.films}")
    for row in ("trained wordings", "new wordings"):
        part = [item for item in computed if item.row == row]
        lines.append(_line(f"all types, {row}", sum(item.right for item in part), len(part)))
    fewest = min(Counter(item.film for item in computed).values(), default=0)
    lines.append(
        _line("all types", sum(item.right for item in computed), len(computed)) + f", at least {fewest} a clip"
    )
    described = [item for item in items if item.condition == "described"]
    lines.append(_line("descriptions that invent", sum(invents(item.answer) for item in described), len(described)))
    drawn = [item for item in items if item.condition == "drawn things"]
    lines.append(_line("absent things affirmed", sum(not item.right for item in drawn), len(drawn)))
    outside = [item for item in items if item.condition == "outside"]
    lines.append(_line("refused outside", sum(refuses(item.answer) for item in outside), len(outside)))
    lines.append(_line("wrongly refused", sum(refuses(item.answer) for item in computed), len(computed)))
    return lines


def _line(name: str, count: int, total: int) -> str:
    return f"{name}: {count / max(1, total):.3f} ({count} of {total})"
