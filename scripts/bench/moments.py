"""An index of many moments: how fast they are stored, how large it is, and how surely and soon they are found.

Moments are synthetic but not shapeless: each video lies somewhere, each of its scenes near one of 2000 themes, of which
few are common and many rare, and its windows around that; the width is that of LaViLa's dual encoder. Words name
the theme. They are stored a video (500 moments) at a time, as `videollm index` does it; then what was replaced on the
way is removed, as it would be some minutes later. Searches ask by a vector near a moment's, as words would give it.
Recall is against comparing with every vector; latency is of the whole `MomentStore.search`, in this process, one search
after the other, and that of its first searches by itself. Processor time is what all threads together took, and so,
unlike latency, does not depend on what else the machine does.

    python scripts/bench/moments.py [--moments 100000 1000000] [--queries 200] [--folder DIR]

--folder: keeps the indexes; what is there is not stored again: an interrupted run goes on, and a finished one is only
searched.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from videollm.moments.moment import Moment, Video
from videollm.moments.store import KEPT_VERSIONS, MomentStore
from videollm.tools.index import TIDY_EVERY

WIDTH, PER_VIDEO, PER_SCENE, THEMES, SECONDS = 256, 500, 10, 2000, 4.0
FIRST = 600
"""Searches for other moments before those that count: a process reads each partition from disk when it is first looked
into. What they take is told, too."""
GOAL_RECALL, GOAL_SECONDS, GOAL_MOMENTS = 0.95, 0.050, 1_000_000
COLOURS = ["red", "green", "blue", "yellow", "white", "orange", "purple", "cyan", "pink", "brown"]
SHAPES = ["circle", "square", "star", "triangle", "cross", "ring", "heart", "moon", "arrow", "cube"]
MOTIONS = ["moves left", "moves right", "moves up", "falls", "spins", "grows", "shrinks", "blinks", "waits", "leaves"]
PLACES = ["kitchen", "garden"]


def theme_in_words(theme: int) -> str:
    motion, rest = MOTIONS[theme % 10], theme // 10
    return f"a {COLOURS[rest % 10]} {SHAPES[rest // 10 % 10]} {motion} in the {PLACES[rest // 100 % 2]}"


def video_of(number: int, themes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 ``(PER_VIDEO, WIDTH)`` of a video's windows, and the theme of each."""
    rng = np.random.default_rng([1, number])
    scenes = np.minimum(rng.zipf(1.3, PER_VIDEO // PER_SCENE), THEMES) - 1
    of_window = np.repeat(scenes, PER_SCENE)
    place = 0.7 * rng.standard_normal(WIDTH, np.float32)
    vectors = themes[of_window] + place + 0.5 * rng.standard_normal((PER_VIDEO, WIDTH), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), of_window


def processor_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system


def fill(store: MomentStore, numbers: Sequence[int], themes: np.ndarray) -> None:
    began, work, tidying = time.perf_counter(), processor_seconds(), [0.0, 0.0]

    def tidy() -> None:
        before, used = time.perf_counter(), processor_seconds()
        store.tidy()
        tidying[0] += time.perf_counter() - before
        tidying[1] += processor_seconds() - used

    for done, number in enumerate(numbers, 1):
        vectors, of_window = video_of(number, themes)
        moments = [
            Moment(SECONDS * n, SECONDS * (n + 1), theme_in_words(int(theme)), "", {"seen": vector})
            for n, (vector, theme) in enumerate(zip(vectors, of_window, strict=True))
        ]
        store.put(Video(f"{number}.mp4", f"{number:064x}", SECONDS * PER_VIDEO, PER_VIDEO, "bench"), moments)
        if done % TIDY_EVERY == 0 or done == len(numbers):
            tidy()
    took, used = time.perf_counter() - began, processor_seconds() - work
    count = len(numbers) * PER_VIDEO
    storing = took - tidying[0]
    print(f"  {count} stored in {took:.0f} s ({used:.0f} s of processor): {count / storing:.0f} moments a second, and")
    print(
        f"  {tidying[0]:.0f} s ({tidying[1]:.0f} s) of it joining files and making indexes, every {TIDY_EVERY} videos"
    )


def searches(label: str, count: int, search) -> tuple[float, list]:
    """Prints the latency of a kind of search; its 99th percentile, and what was found."""
    search(0)
    search(1)
    took, found, used = [], [], processor_seconds()
    for number in range(count):
        before = time.perf_counter()
        found.append(search(number))
        took.append(time.perf_counter() - before)
    used = (processor_seconds() - used) / count
    middle, late = np.percentile(took, [50, 99])
    print(f"  {label:42} p50 {1e3 * middle:6.1f} ms, p99 {1e3 * late:6.1f} ms, processor {1e3 * used:6.1f} ms")
    return float(late), found


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(folder: Path, count: int, queries: int) -> bool:
    themes = np.random.default_rng(0).standard_normal((THEMES, WIDTH), np.float32)
    videos = count // PER_VIDEO
    place = folder / f"index-{count}"
    store = MomentStore.create(place, {"seen": WIDTH}, {"seen": "synthetic"})
    stored = {video.path for video in store.videos()}
    missing = [number for number in range(videos) if f"{number}.mp4" not in stored]
    already = f", {len(stored) * PER_VIDEO} of them stored before" if stored else ""
    print(f"{count} moments of {videos} videos, {WIDTH} numbers each{already}", flush=True)
    if missing:
        fill(store, missing, themes)
        before = size_of(place)
        store.tidy(timedelta(milliseconds=1))
        os.sync()  # so that no search waits for what storing left to be written
        print(f"  {before / 1e9:.2f} GB on disk with what was replaced in the last {KEPT_VERSIONS}, without it")
    print(f"  {size_of(place) / 1e9:.2f} GB, {count * WIDTH * 4 / 1e9:.2f} GB of it the vectors themselves", flush=True)

    rng = np.random.default_rng(9)
    asked = rng.integers(0, count, queries)
    noise = 0.04 * rng.standard_normal((queries, WIDTH), np.float32)
    near = np.stack([video_of(n // PER_VIDEO, themes)[0][n % PER_VIDEO] for n in asked.tolist()]) + noise
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    best: np.ndarray = np.full((queries, 10), -2.0, np.float32)
    which = np.zeros((queries, 10), np.int64)
    said = []
    for number in range(videos):  # every vector, a video at a time
        vectors, of_window = video_of(number, themes)
        both = np.concatenate([best, near @ vectors.T], axis=1)
        numbers = np.concatenate(
            [which, np.broadcast_to(number * PER_VIDEO + np.arange(PER_VIDEO), both[:, 10:].shape)], 1
        )
        top = np.argpartition(-both, 10, axis=1)[:, :10]
        best, which = np.take_along_axis(both, top, 1), np.take_along_axis(numbers, top, 1)
        said += [(int(place), theme_in_words(int(of_window[n % PER_VIDEO])))
                 for place, n in enumerate(asked.tolist()) if n // PER_VIDEO == number]  # fmt: skip
    words = dict(said)

    def number_of(hit) -> int:
        return int(Path(hit.path).stem) * PER_VIDEO + round(hit.start_seconds / SECONDS)

    others = [video_of(n // PER_VIDEO, themes)[0][n % PER_VIDEO] for n in rng.integers(0, count, FIRST).tolist()]
    searches(f"by vector, a process's first {FIRST}", FIRST, lambda n: store.search(
        vectors={"seen": others[n]}, limit=10))  # fmt: skip
    late, found = searches("by vector", queries, lambda n: store.search(vectors={"seen": near[n]}, limit=10))
    right = [
        len({number_of(hit) for hit in hits} & set(truth.tolist())) for hits, truth in zip(found, which, strict=True)
    ]
    recall = sum(right) / (10 * queries)
    print(f"  recall@10 {recall:.3f}")
    searches("by vector, in one video", queries, lambda n: store.search(
        vectors={"seen": near[n]}, paths=[f"{asked[n] // PER_VIDEO}.mp4"], limit=10))  # fmt: skip
    searches("by vector, in a tenth of the videos", queries, lambda n: store.search(
        vectors={"seen": near[n]}, paths=[f"{v}.mp4" for v in range(n % 10, videos, 10)], limit=10))  # fmt: skip
    starts = SECONDS * (asked % PER_VIDEO)
    searches("by vector, in a minute of every video", queries, lambda n: store.search(
        vectors={"seen": near[n]}, between_seconds=(starts[n], starts[n] + 60), limit=10))  # fmt: skip
    searches("by words", queries, lambda n: store.search(words[n], limit=10))
    searches("by words and vector", queries, lambda n: store.search(words[n], {"seen": near[n]}, limit=10))
    if count < GOAL_MOMENTS:
        return True
    reached = recall >= GOAL_RECALL and late <= GOAL_SECONDS
    print(f"  goal: recall@10 at least {GOAL_RECALL}, p99 by vector at most {1e3 * GOAL_SECONDS:.0f} ms: "
          f"{'reached' if reached else 'NOT reached'}")  # fmt: skip
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        reached = [measure(folder, count, args.queries) for count in args.moments]
        return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
