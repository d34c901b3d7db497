"""Narration of half an hour of known scenes: what is found, what is true, memory, a kill; or, with --speed, its speed.

The film is made of scenes of one thing each, 3 to 8 s, that no training draws. A scene is found if its thing is named
from its start to its end, give or take half a window; a span is true if it names a thing that is there in its time.
Peak memory, of the process and of its decoders, is that for this film against that for one of 3 minutes. Then the same
narration is killed in the middle (SIGKILL) and started again: the files must be equal to the byte.

    python scripts/bench/narration.py [--model tiny] [--window 2] [--stride 1] [--question "..."] [--scorer DIR]
        [--candidates N] [--minutes 30] [--first 0] [--no-kill]
    python scripts/bench/narration.py --speed [--window 2] [--stride 1] [--rounds 3] [--seconds 120]

--speed: windows a second with `tiny`, and what share of that is decoding; decoding once against window by window. Ways
are measured in turn within each round; a figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from videollm.clips import Waveform
from videollm.evaluation.known_scenes import KnownScene, Told, film_of, told
from videollm.media.decode_worker import open_clip, open_windows
from videollm.media.write import write_video
from videollm.tools.narrate import Narration, NarrationSettings, narrate
from videollm.tools.narrators import load_narrator

GOAL, MEMORY_GOAL_BYTES, SHORT_MINUTES, RATE_HZ = 0.95, 200e6, 3, 4
MEASURED = """
import resource, sys
from videollm.media.decode_worker import close_server, start_server
start_server()  # before this process is large: a child's peak is at least its parent's size when it began
from videollm.cli.main import main
code = main(["narrate", *sys.argv[1:]])
close_server()  # now the decoding processes are among the children that were waited for
print(code, *(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def narrations_in(path: Path) -> list[Narration]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Narration(row["start_seconds"], row["end_seconds"], row["text"]) for row in rows]


def windows_done(journal: Path) -> int:
    """How many windows an unfinished narration has behind it."""
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return 0
    return sum(len(json.loads(line).get("windows", ())) for line in lines if line.endswith("}"))


def known_scenes(args: argparse.Namespace, flags: list[str]) -> bool:
    """Prints what is found, true and taken; whether all goals are reached."""
    peaks: dict[int, list[int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for minutes in sorted({min(SHORT_MINUTES, args.minutes), args.minutes}):
            known: list[KnownScene] = []
            film = write_video(
                folder / f"{minutes}.mp4",
                film_of(60 * minutes, RATE_HZ, known, args.first),
                fps=RATE_HZ,
                preset="ultrafast",
            )
            out = film.with_suffix(".jsonl")
            started = time.perf_counter()
            words = [sys.executable, "-c", MEASURED, str(film), "--out", str(out), *flags]
            said = subprocess.run(words, capture_output=True, text=True, check=False)
            if said.returncode:
                sys.exit(said.stderr[-2000:])
            code, *peak = map(int, said.stdout.split()[-3:])
            if code:
                sys.exit(said.stderr[-2000:])
            peaks[minutes] = [1024 * kilobytes for kilobytes in peak]
            taken = time.perf_counter() - started
        counts: Told = told(known, narrations_in(out), args.window / 2)
        print(f"{args.model}, windows of {args.window:g} s every {args.stride:g} s, {args.minutes} minutes: {counts}")
        print(f"  within {args.window / 2:g} s; {60 * args.minutes / taken:.1f} times as fast as the film")
        grown = max(b - a for a, b in zip(peaks[min(peaks)], peaks[max(peaks)], strict=True))
        peak_mb = " and ".join(f"{size / 1e6:.0f}" for size in peaks[args.minutes])
        print(f"  peak of process and decoders {peak_mb} MB; {grown / 1e6:+.0f} MB against {min(peaks)} minutes")
        good = (
            counts.found >= GOAL * counts.scenes and counts.true >= GOAL * counts.spans and grown <= MEMORY_GOAL_BYTES
        )
        if args.kill:
            good = killed(film, out, flags) and good
    return good


def killed(film: Path, whole: Path, flags: list[str]) -> bool:
    """Kills a narration in the middle and starts it again; whether the result is the same."""
    out = film.with_name("killed.jsonl")
    journal = out.with_name(f".{out.name}.unfinished")
    words = [sys.executable, "-m", "videollm", "narrate", str(film), "--out", str(out), *flags]
    half = whole.read_text(encoding="utf-8").count("\n") // 2
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and windows_done(journal) < half:
        time.sleep(0.5)
    if run.poll() is not None:
        print("  it ended before it could be killed")
        return False
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = windows_done(journal)
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    same = again.returncode == 0 and out.read_bytes() == whole.read_bytes()
    print(f"  killed after {done} windows and started again: {'the same file' if same else 'ANOTHER FILE'}")
    return same and "starts anew" not in again.stderr


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def speed(args: argparse.Namespace) -> None:
    narrator = load_narrator("tiny", device="cpu")
    settings = NarrationSettings(window_seconds=args.window, stride_seconds=args.stride)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (args.seconds // 4 + 1, 9, 16, 3), dtype=np.uint8)
    shots = coarse.repeat(40, axis=1).repeat(40, axis=2)
    pictures = (np.roll(shots[i // 100], 4 * i, axis=1) for i in range(25 * args.seconds))
    sound = Waveform(rng.normal(0, 0.1, (1, 16000 * args.seconds)).astype(np.float32), 16000)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "film.mp4", pictures, fps=25, waveform=sound, key_every=50)
        with open_windows(path, settings.windows(narrator)) as opened:
            spans = opened.file.spans

        def once() -> None:
            with open_windows(path, settings.windows(narrator)) as opened:
                for _ in opened:
                    pass

        def one_by_one() -> None:
            for start, end in spans:
                open_clip(path, frames=narrator.frames, sound=narrator.sound, start_seconds=start, end_seconds=end)

        ways: dict[str, Callable[[], object]] = {
            "narrate": lambda: list(narrate(path, narrator, window_seconds=args.window, stride_seconds=args.stride)),
            "decode once": once,
            "decode window by window": one_by_one,
        }
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, way in ways.items():
                spent[name].append(timed(way))
    whole, decoding, apart = (statistics.median(times) for times in spent.values())
    print(f"{len(spans)} windows of {args.window:g} s every {args.stride:g} s of {args.seconds} s, 640x360")
    print(f"narrate: {len(spans) / whole:.1f} windows a second, {args.seconds / whole:.0f} times as fast as the film")
    print(f"decoding once: {len(spans) / decoding:.1f} windows a second, {100 * decoding / whole:.0f} % of narrating")
    print(f"decoding window by window takes {apart / decoding:.1f} times as long")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a chat model or LaViLa's narrator")
    parser.add_argument("--window", type=float, default=2.0)
    parser.add_argument("--stride", type=float, default=1.0)
    parser.add_argument("--question", help="what a chat model is asked; default: as `videollm narrate` asks")
    parser.add_argument("--scorer", help="a dual encoder that chooses among candidates")
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--repeats", type=float)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="the number of the first scene: another film")
    parser.add_argument("--no-kill", dest="kill", action="store_false")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument(
        "--seconds", type=int, default=120, help="--speed: length of the film, 640x360, 25 frames a second"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.speed:
        speed(args)
        return 0
    flags = ["--model", args.model, "--window", str(args.window), "--stride", str(args.stride)]
    for name in ("question", "scorer", "candidates", "threshold", "repeats"):
        if getattr(args, name) is not None:
            flags += [f"--{name}", str(getattr(args, name))]
    good = known_scenes(args, flags)
    goals = f"{GOAL:.0%} found and true, memory within {MEMORY_GOAL_BYTES / 1e6:.0f} MB, the same after a kill"
    print(f"goals ({goals}): {'reached' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
