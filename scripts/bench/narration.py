"""Narration: windows a second with `tiny`, and what share of that is decoding; decoding once against window by window.

    python scripts/bench/narration.py [--seconds 120] [--window 4] [--stride 2] [--rounds 3]

Ways are measured in turn within each round; a figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from videollm.clips import Waveform
from videollm.media.decode_worker import open_clip, open_windows
from videollm.media.write import write_video
from videollm.tools.narrate import NarrationSettings, narrate
from videollm.tools.narrators import load_narrator


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120, help="length of the film, 640x360 at 25 frames a second")
    parser.add_argument("--window", type=float, default=4.0)
    parser.add_argument("--stride", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
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


if __name__ == "__main__":
    main()
