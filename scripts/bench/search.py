"""Does search find the right moment first? ``python scripts/bench/search.py [--into FOLDER]``

A library of 200 films of the drawn world, one minute to ten, is written and indexed; descriptions that are true of one
moment of all films each are searched (`videollm.evaluation.library`). A hit is right where it is of that film and its
temporal IoU with the moment is at least 0.5. Beside it: without full text; full text alone; vectors of single frames
alone; chance. Films, index and frames are kept in the folder, and an interrupted run goes on.

Prints one JSON line for each kind of query and way of searching. Exits with 1 where search with all ways stays below
its bar (`BAR`, set from a first measurement) or does not beat full text alone and single frames alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from videollm.clips import Clip, Frames
from videollm.evaluation.library import QUERY_KINDS, LibraryFilm, Query, draw_library, draw_queries, overlap
from videollm.media.decode_worker import open_windows
from videollm.media.sampling import FrameSampling
from videollm.media.windows import WindowSampling
from videollm.moments.embed import SightEncoder, load_sight_encoder
from videollm.moments.sound import load_sound_encoder
from videollm.moments.store import MomentStore
from videollm.tools.index import LISTEN_QUESTION, Crew, IndexSettings, index
from videollm.tools.narrate import LONG_FILE
from videollm.tools.narrators import ChatNarrator, load_narrator
from videollm.tools.search import search

EACH = 100
LEAST_OVERLAP = 0.5
BAR = {"sight": 0.50, "sound": 0.25, "both": 0.30}
"""R@1 of search with all ways in 200 films."""
BASELINES = ("full text alone", "single frames alone")
BATCH_WINDOWS = 24

Ranked = Callable[[Query], list[tuple[str, float, float]]]
"""The hits of a query, the best first: film, start and end in seconds."""


def main() -> None:
    """Write, index and score; what is done already is not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--into", type=Path, default=Path("runs/bench/search"), metavar="FOLDER", help="keeps films, index and frames"
    )
    parser.add_argument("--films", type=int, default=200, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first film: another library")
    parser.add_argument(
        "--each", type=int, default=EACH, metavar="N", help="queries of a kind, where there are so many"
    )
    parser.add_argument("--without-frames", action="store_true", help="leave out the baseline of single frames")
    args = parser.parse_args()
    torch.set_num_threads(1)
    library = draw_library(args.films, args.first)
    films, into = args.into / "films", args.into / "index"
    films.mkdir(parents=True, exist_ok=True)
    for film in library:
        if not (films / film.name).exists():
            film.write(films / film.name)
    crew = _crew()
    paths = [films / film.name for film in library]
    done = index(paths, into, crew, IndexSettings(batch_windows=BATCH_WINDOWS), report=print)
    print(json.dumps({"stored": len(done.stored), "unchanged": len(done.unchanged), "failed": len(done.failed)}))
    assert crew.encoder is not None and crew.ear is not None
    store = crew.open(into)
    queries = draw_queries(library, args.each)
    encoder, ear = crew.encoder, crew.ear
    frames = None if args.without_frames else _single_frames(paths, args.into / "frames", encoder)

    def by(**using: object) -> Ranked:
        def ranked(query: Query) -> list[tuple[str, float, float]]:
            hits = search(store, query.words, limit=5, **using)  # pyright: ignore[reportArgumentType]
            return [(Path(hit.path).name, hit.start_seconds, hit.end_seconds) for hit in hits]

        return ranked

    ways: dict[str, Ranked] = {
        "all": by(encoder=encoder, ear=ear),
        "without full text": by(encoder=encoder, ear=ear, text=False),
        "full text alone": by(),
    }
    if frames is not None:
        ways["single frames alone"] = lambda query: _by_frames(frames, encoder.words(query.words))
    missed = []
    for kind in QUERY_KINDS:
        asked = [query for query in queries if query.kind == kind]
        scores = {}
        for name, ranked in ways.items():
            scores[name] = _scores(asked, ranked)
            print(json.dumps({"queries": kind, "of": len(asked), "by": name, **scores[name]}), flush=True)
        print(json.dumps({"queries": kind, "by": "chance", "R@1": round(_chance(asked, store, library), 4)}))
        first = scores["all"]["R@1"]
        if first < BAR[kind] or any(scores[name]["R@1"] >= first for name in BASELINES if name in scores):
            missed.append(f"by {kind}: R@1 {first}, bar {BAR[kind]}")
    if missed:
        sys.exit(f"missed: {'; '.join(missed)}")


def _crew() -> Crew:
    narrator, told = load_narrator("tiny_narrator", device="cpu"), load_narrator("tiny", device="cpu")
    assert isinstance(told, ChatNarrator)
    listener = told.asking(LISTEN_QUESTION)
    encoder, ear = load_sight_encoder("tiny_dual_encoder", "cpu"), load_sound_encoder("tiny_imagebind", "cpu")
    return Crew(narrator, listener, encoder, ear=ear)


def _scores(queries: Sequence[Query], ranked: Ranked) -> dict[str, float]:
    right = []
    for query in queries:
        name = f"film-{query.film:03d}.mp4"
        moment = query.start_seconds, query.end_seconds
        hits = ranked(query)
        right.append([film == name and overlap((start, end), moment) >= LEAST_OVERLAP for film, start, end in hits])
    count = max(len(queries), 1)
    return {
        "R@1": round(sum(any(one[:1]) for one in right) / count, 3),
        "R@5": round(sum(any(one[:5]) for one in right) / count, 3),
    }


def _chance(queries: Sequence[Query], store: MomentStore, library: Sequence[LibraryFilm]) -> float:
    """How often a window drawn at random is right."""
    paths = {Path(video.path).name: video.path for video in store.videos()}
    moments = {film.number: store.moments(paths[film.name]) for film in library}
    total = sum(map(len, moments.values()))
    right = [
        sum(
            overlap((one.start_seconds, one.end_seconds), (query.start_seconds, query.end_seconds)) >= LEAST_OVERLAP
            for one in moments[query.film]
        )
        for query in queries
    ]
    return sum(right) / max(len(right), 1) / total


def _single_frames(
    paths: Sequence[Path], kept: Path, encoder: SightEncoder
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each film its name, the windows ``(N, 2)`` and the vectors of one frame in the middle of each ``(N, D)``."""
    kept.mkdir(exist_ok=True)
    found = []
    settings = IndexSettings()
    for path in paths:
        file = kept / f"{path.stem}.npz"
        if not file.exists():
            sampling = WindowSampling(
                settings.window_seconds, settings.stride_seconds, FrameSampling("centre", frames=1), None
            )
            spans, clips = [], []
            with open_windows(path, sampling, limits=LONG_FILE) as opened:
                for window in opened:
                    spans.append((window.start_seconds, window.end_seconds))
                    clips.append(_still(window.clip))
            rows = [row for at in range(0, len(clips), 32) for row in encoder.clips(clips[at : at + 32])]
            np.savez(file, spans=np.array(spans), vectors=np.array(rows, np.float32))
        data = np.load(file)
        found.append((path.name, data["spans"], data["vectors"]))
    return found


def _still(clip: Clip) -> Clip:
    """A clip in which only its middle frame is shown."""
    frames = clip.frames
    assert frames is not None
    middle = len(frames) // 2
    one = Frames(frames.pixels[middle : middle + 1], frames.seconds[middle : middle + 1], frames.duration_seconds)
    return Clip(clip.name, clip.kind, clip.content_hash, clip.duration_seconds, one)


def _by_frames(
    frames: Sequence[tuple[str, np.ndarray, np.ndarray]], words: np.ndarray
) -> list[tuple[str, float, float]]:
    """The windows whose frame is nearest to words, none that overlaps a better one."""
    fits = np.concatenate([vectors @ words for _, _, vectors in frames])
    owners = [(name, *span) for name, spans, _ in frames for span in spans.tolist()]
    hits: list[tuple[str, float, float]] = []
    for place in np.argsort(-fits):
        name, start, end = owners[place]
        if not any(name == other and start < last and first < end for other, first, last in hits):
            hits.append((name, start, end))
        if len(hits) == 5:
            break
    return hits


if __name__ == "__main__":
    main()
