"""An hour-long film, asked about in words: where the answers point, what preparing it takes, memory, the second turn.

The films are of scenes that no training draws, 3 to 8 s each, with their sounds, 24 pictures a second. They are made
once and kept in a folder. Each is prepared as `videollm chat FILM --segments 20` prepares it, in a process of its own.
Then questions about single events are put to the session; every one is chosen so that exactly one moment of the film
fits. The span that an answer cites first is right where its overlap (intersection over union) with the event is at
least 0.5, or where it holds the event and is at most 15 s long.

    python scripts/bench/hour.py [--minutes 60] [--short 5] [--seed 0] [--questions 120] [--threads 2] [--films DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from videollm.chat.session import ChatSession
from videollm.clips import Waveform
from videollm.data.sounds import synthesise
from videollm.data.world_narrations import FRAME_RATE, Shown, film, film_scenes
from videollm.media.write import write_video
from videollm.models.hub import load
from videollm.moments.store import MomentStore
from videollm.tools.router import Router

SHOWN_TIMES, SOUND_HZ = 6, 16000


def made(folder: Path, minutes: float, seed: int) -> tuple[Path, list[Shown]]:
    """A film of about that length, and what is shown when; it is made if it is not there."""
    path = folder / f"film-{seed}-{minutes:g}.mp4"
    scenes = []
    lasts = 0.0
    for scene in film_scenes(seed, kept=True):
        scenes.append(scene)
        lasts += int(scene.duration_seconds * FRAME_RATE) / FRAME_RATE
        if lasts >= 60 * minutes:
            break
    pictures, shown = film(scenes)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sound = np.zeros((1, round(lasts * SOUND_HZ)), np.float32)
        for scene, one in zip(scenes, shown, strict=True):
            first, last = round(one.start_seconds * SOUND_HZ), round(one.end_seconds * SOUND_HZ)
            heard = synthesise(scene, SOUND_HZ, 1)
            if heard is not None:
                sound[:, first:last] = heard[:, : last - first]
        unfinished = path.with_name(f".{path.name}")
        repeated = (picture for picture in pictures for _ in range(SHOWN_TIMES))
        write_video(
            unfinished, repeated, fps=FRAME_RATE * SHOWN_TIMES, waveform=Waveform(sound, SOUND_HZ), preset="ultrafast"
        )
        unfinished.rename(path)
    return path, shown


# --- questions --------------------------------------------------------------------------------------------------------

KINDS = ("one", "two", "after", "before")
_WHEN = ("When does {}?", "At what time does {}?", "Where in the film does {}?", "Find the moment when {}.")
_BOTH = ("When are {} shown?", "At what time do you see {}?", "Where in the film are {}?", "Find the moment with {}.")
_BESIDE = {
    "after": ("What happens after {}?", "What is shown right after {}?", "What comes next after {}?"),
    "before": ("What happens before {}?", "What is shown right before {}?", "What do you see just before {}?"),
}
_DOES = {
    "left": "move left", "right": "move right", "up": "move up", "down": "move down", "circle": "move in a circle",
    "still": "stay still", "grows": "grow", "shrinks": "shrink",
}  # fmt: skip
_MOVES = {
    "left": "moves left", "right": "moves right", "up": "moves up", "down": "moves down", "circle": "moves in a circle",
    "still": "stays still", "grows": "grows", "shrinks": "shrinks",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A question about one event, and when that is."""

    kind: str
    question: str
    start_seconds: float
    end_seconds: float


def questions(shown: list[Shown], count: int, seed: int) -> list[Asked]:
    """So many questions, as many of each kind, each with one moment of the film that fits.

    "one": a thing, its motion and its background; "two": two things that are there together, and their background;
    "after" and "before": what is shown beside such a moment. Of how many moments a description fits is counted on the
    film's own script.
    """
    rng = np.random.default_rng([seed, 71])
    acts: Counter[tuple[str, ...]] = Counter()
    pairs: Counter[tuple[str, ...]] = Counter()
    for one in shown:
        acts.update({(*thing, str(one.facts.background)) for thing in one.facts.things})
        if len(one.facts.things) == 2:
            pairs[_pair(one)] += 1

    def described(one: Shown, verbs: dict[str, str]) -> tuple[str, bool] | None:
        """A description that fits this moment alone, and whether it is of two things."""
        if len(one.facts.things) == 2:
            both = " and ".join(_a(f"{colour} {shape}") for colour, shape, _ in one.facts.things)
            return (f"{both} on a {one.facts.background} background", True) if pairs[_pair(one)] == 1 else None
        for colour, shape, motion in one.facts.things:
            if acts[colour, shape, motion, str(one.facts.background)] == 1:
                name = _a(f"{colour} {shape}")
                return f"{name} {verbs[motion]} on a {one.facts.background} background", False
        return None

    asked: dict[str, list[Asked]] = {kind: [] for kind in KINDS}
    for place in rng.permutation(len(shown)).tolist():
        one = shown[place]
        plain, asking = described(one, _MOVES), described(one, _DOES)
        if plain is None or asking is None:
            continue
        is_two = plain[1]
        ways = [("two", _BOTH, plain[0], one)] if is_two else [("one", _WHEN, asking[0], one)]
        for way, other in (("after", place + 1), ("before", place - 1)):
            if 0 <= other < len(shown):
                ways.append((way, _BESIDE[way], plain[0] + (" are shown" if is_two else ""), shown[other]))
        kind, wordings, text, event = min(ways, key=lambda way: len(asked[way[0]]))
        if len(asked[kind]) < -(-count // len(KINDS)):
            wording = wordings[int(rng.integers(len(wordings)))]
            text = plain[0] if wording.startswith("Find") else text
            asked[kind].append(Asked(kind, wording.format(text), event.start_seconds, event.end_seconds))
    return [one for kind in KINDS for one in asked[kind]]


def _pair(one: Shown) -> tuple[str, ...]:
    return (*(part for colour, shape, _ in one.facts.things for part in (colour, shape)), str(one.facts.background))


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


MOST_SECONDS, LEAST_OVERLAP = 15.0, 0.5


def is_right(asked: Asked, start: float, end: float) -> bool:
    """Whether a cited span is near enough to the event, or holds it and is short."""
    both = max(0.0, min(end, asked.end_seconds) - max(start, asked.start_seconds))
    either = max(end, asked.end_seconds) - min(start, asked.start_seconds)
    holds = start <= asked.start_seconds and asked.end_seconds <= end and end - start <= MOST_SECONDS
    return both / either >= LEAST_OVERLAP or holds


# --- measured, each in a process of its own ---------------------------------------------------------------------------

INDEX = ["--window", "8", "--stride", "4", "--cuts"]
"""As `videollm chat --segments` makes an index of its own."""
COST_GOAL, RIGHT_GOAL, GROWTH_GOAL = 0.2, 0.9, 1.2
PREPARED = """
import json, resource, sys, time
import torch
torch.set_num_threads(int(sys.argv[1]))
from videollm.cli.main import main
from videollm.media.decode_worker import close_server
started = time.perf_counter()
code = main(["index", *sys.argv[2:]])
taken = time.perf_counter() - started
close_server()
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
told = {"wall_seconds": taken, "processor_seconds": sum(one.ru_utime + one.ru_stime for one in used)}
print(json.dumps(told | {"peak_bytes": max(1024 * one.ru_maxrss for one in used)}))
sys.exit(code)
"""


def prepared(film: Path, threads: int) -> tuple[Path, dict[str, float]]:
    """The index of a film, and what making it took; it is made if it is not there."""
    index, taken = film.with_suffix(".index"), film.with_suffix(".index.json")
    if not taken.exists():
        words = [sys.executable, "-c", PREPARED, str(threads), str(film), "--into", str(index), *INDEX]
        said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if said.returncode:
            sys.exit(f"{film} could not be prepared")
        taken.write_text(said.stdout.splitlines()[-1] + "\n")
    return index, json.loads(taken.read_text())


def session_of(film: Path, index: Path, loaded: tuple[Any, Any]) -> ChatSession:
    """As `videollm chat FILM --segments 20 --index INDEX` begins one."""
    router = Router.of_model(*loaded, index=MomentStore.open(index))
    session = ChatSession(*loaded, tools=router)
    session.watch(film, choose=lambda words: router.stretches(words, film))
    return session


def answered(session: ChatSession, asked: Sequence[Asked], log: Path) -> tuple[list[bool], Counter[str]]:
    """Which questions' first citation is right; every answer goes into a file. Each is asked by itself."""
    right: list[bool] = []
    of_kind: Counter[str] = Counter()
    with log.open("w", encoding="utf-8") as file:
        for one in asked:
            answer = session.ask(one.question)
            cited = answer.used[0] if answer.used else None
            right.append(cited is not None and is_right(one, cited.start_seconds, cited.end_seconds))
            of_kind[one.kind] += right[-1]
            told = [line.sentence for line in answer.coverage]
            row = {**asdict(one), "cited": None if cited is None else asdict(cited), "right": right[-1]}
            file.write(json.dumps(row | {"answer": answer.text, "coverage": told}) + "\n")
            session.undo()
    return right, of_kind


@dataclass
class SecondTurns:
    """Of one film, for each round: seconds up to the first word of the second question, the bytes that the session
    holds then, and the pictures that it has been shown."""

    taken: list[float] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)


def in_pairs(few: Sequence[Asked], many: Sequence[Asked], rounds: int) -> Iterator[tuple[tuple[Asked, Asked], ...]]:
    """Two questions about each of two films, in turn of each kind; those of the second are of events that last as long
    as those of the first: what is longer shows more pictures, and takes longer, in whatever film it is.
    """
    for number in range(rounds):
        turn, kind = divmod(number, len(KINDS))
        some, others = ([one for one in asked if one.kind == KINDS[kind]] for asked in (few, many))
        pair = some[2 * turn % len(some)], some[(2 * turn + 1) % len(some)]
        alike = []
        for one in pair:
            alike.append(min(others, key=lambda other: abs(_lasts(other) - _lasts(one))))
            others.remove(alike[-1])
        yield pair, (alike[0], alike[1])


def _lasts(asked: Asked) -> float:
    return asked.end_seconds - asked.start_seconds


def second_turns(
    opened: Sequence[Callable[[], ChatSession]], asked: Sequence[Sequence[Asked]], rounds: int
) -> list[SecondTurns]:
    """What a second question costs, about another moment than the first; two films in turn, each time in a new session:
    one that was asked before about a few minutes has seen most of them.
    """
    measured = [SecondTurns() for _ in opened]
    for number, pairs in enumerate(in_pairs(*asked, rounds + 1)):  # the first round warms up
        for anew, (first, second), into in zip(opened, pairs, measured, strict=True):
            session = anew()
            session.ask(first.question)
            started = time.perf_counter()
            session.ask(second.question, max_new_tokens=1)
            if number:
                into.taken.append(time.perf_counter() - started)
                into.held.append(session.memory_bytes)
                shown = (clip.frames for clip in session.clips.values())
                into.pictures.append(sum(len(frames) for frames in shown if frames is not None))
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--short", type=float, default=5, help="the film of so many minutes that it is compared with")
    parser.add_argument("--seed", type=int, default=0, help="another gives other films and questions")
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=16, help="of second questions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--films", type=Path, default=Path("runs/hour"), help="keeps films and indexes; default: runs/hour"
    )
    args = parser.parse_args()
    films, shown, indexes, costs = [], [], [], []
    for minutes in (args.short, args.minutes):
        film, told = made(args.films, minutes, args.seed)
        index, cost = prepared(film, args.threads)
        films, shown = [*films, film], [*shown, told]
        indexes, costs = [*indexes, index], [*costs, cost]
        share = [cost[name] / told[-1].end_seconds for name in ("processor_seconds", "wall_seconds")]
        print(
            f"{film.name}: {told[-1].end_seconds:.0f} s, {len(told)} scenes; prepared in {share[0]:.3f} of its length "
            f"of processor time, {share[1]:.3f} by the clock; {cost['peak_bytes'] / 1e6:.0f} MB at most",
            flush=True,
        )
    peaks = [cost["peak_bytes"] for cost in costs]
    print(f"memory of preparing: {args.minutes:g} minutes take {peaks[1] / peaks[0]:.2f} times that of {args.short:g}")
    torch.set_num_threads(args.threads)
    loaded = load("tiny", device="cpu")
    asked = [questions(told, args.questions, args.seed) for told in shown]
    fewest = min(sum(one.kind == kind for one in listed) for listed in asked for kind in KINDS)
    if fewest < 2:
        sys.exit(f"two questions of each kind are needed, found {fewest}; give more --questions, or longer films")
    log = films[1].with_suffix(".answers.jsonl")
    right, of_kind = answered(session_of(films[1], indexes[1], loaded), asked[1], log)
    each = ", ".join(f"{kind} {of_kind[kind]} of {sum(one.kind == kind for one in asked[1])}" for kind in KINDS)
    print(
        f"first citation right: {sum(right)} of {len(right)} ({sum(right) / len(right):.1%}): {each}; {log}", flush=True
    )

    opened = [partial(session_of, film, index, loaded) for film, index in zip(films, indexes, strict=True)]
    few, many = second_turns(opened, asked, args.rounds)
    later = statistics.median(b / a for a, b in zip(few.taken, many.taken, strict=True))
    held = [statistics.median(one.held) for one in (few, many)]
    grown = held[1] / held[0]
    pictures = [statistics.fmean(one.pictures) for one in (few, many)]
    print(
        f"second question: {statistics.median(few.taken):.3f} s in {args.short:g} minutes, "
        f"{statistics.median(many.taken):.3f} s in {args.minutes:g}, ratio {later:.2f}; sessions hold "
        f"{held[0] / 2**20:.2f} and {held[1] / 2**20:.2f} MB, ratio {grown:.2f}, and were shown {pictures[0]:.1f} and "
        f"{pictures[1]:.1f} pictures"
    )
    on_two_cores = costs[1]["processor_seconds"] / 2 / shown[1][-1].end_seconds
    goals = {
        f"right at least {RIGHT_GOAL:.0%}": sum(right) >= RIGHT_GOAL * len(right),
        f"second question within {GROWTH_GOAL:g}": later <= GROWTH_GOAL,
        f"memory within {GROWTH_GOAL:g}": grown <= GROWTH_GOAL,
        f"memory of preparing within {GROWTH_GOAL:g}": peaks[1] <= GROWTH_GOAL * peaks[0],
        f"prepared within {COST_GOAL:g} on two cores": on_two_cores <= COST_GOAL,
    }
    print("; ".join(f"{name}: {'met' if met else 'MISSED'}" for name, met in goals.items()))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
