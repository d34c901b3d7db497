"""Time and memory of LF-VILA's video encoder against the number of frames, beside full attention in time.

Both encoders have the published shape, but for the widths (``--width 128`` is the published one); they differ in their
windows alone: growing with depth up to 32 frames, or all frames of the video in every group. For each number of frames
they take turns, so that a busy machine is busy for both. Each measurement is a process of its own, because memory is
the peak of a process less what it held before the video came. Time is that of the processor.

The exponent is the slope of log time (or log memory) over log frames: 1 is linear. Beside what is measured stands what
is counted, the elements of the attention's scores, which need no clock.

    python scripts/bench/long_video.py [--frames N ...] [--rounds N] [--width N] [--threads N] [--full-up-to N]
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOAL = 1.05
FRAMES = (32, 64, 128, 256)
KINDS = ("growing", "full")


def config(kind: str, frames: int, width: int):
    from videollm.models.lf_vila import LfVilaVideoConfig

    published = LfVilaVideoConfig()
    windows = [[frames if kind == "full" else window[0], *window[1:]] for window in published.window_sizes]
    return LfVilaVideoConfig(
        embed_dim=width,
        num_heads=[max(heads * width // published.embed_dim, 1) for heads in published.num_heads],
        window_sizes=windows,
        local_window=max(window[0] for window in windows),
        drop_path_rate=0.0,
    )


def scores(kind: str, frames: int, width: int) -> int:
    """Elements of all attention scores of a video: tokens x tokens of a window x heads, over all blocks."""
    shape = config(kind, frames, width)
    rows, columns = (size // patch for size, patch in zip(shape.image_size, shape.patch_size, strict=True))
    total = 0
    for group, depth in enumerate(shape.depths):
        length, *across = shape.window_sizes[group]
        total += depth * shape.num_heads[group] * frames * rows * columns * min(length, frames) * math.prod(across)
        if group in shape.merge_after:
            rows, columns = rows // 2, columns // 2
    return total


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(kind: str, frames: int, width: int, threads: int, rounds: int) -> dict[str, float]:
    """Processor seconds of a video (the fastest round), and the bytes that it took on top of the model."""
    import torch

    from videollm.models.lf_vila import LfVilaVideoEncoder

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = LfVilaVideoEncoder(config(kind, frames, width)).eval()
    size = tuple(model.config.image_size)
    with torch.no_grad():
        for _ in range(2):  # what is made once (threads, biases of the shortest windows) is not the video's
            model(torch.zeros(1, 2, 3, *size), local=False)
        pixels = torch.randn(1, frames, 3, *size)
        before = peak_bytes()
        taken = []
        for _ in range(rounds):
            start = time.process_time()
            model(pixels, local=False)
            taken.append(time.process_time() - start)
    return {"seconds": min(taken), "bytes": float(peak_bytes() - before)}


def in_own_process(kind: str, frames: int, options: argparse.Namespace) -> dict[str, float] | None:
    numbers = [str(options.width), str(options.threads), "1"]
    words = [sys.executable, str(Path(__file__)), "--one", kind, str(frames), *numbers]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  {kind} at {frames} frames failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def exponent(values: dict[int, float]) -> float:
    """Slope of log value over log frames, by least squares."""
    if len(values) < 2:
        return math.nan
    x, y = [math.log(frames) for frames in values], [math.log(max(value, 1e-9)) for value in values.values()]
    slope, _ = statistics.linear_regression(x, y)
    return slope


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        kind, *numbers = sys.argv[2:]
        print(json.dumps(measure(kind, *map(int, numbers))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=list(FRAMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--full-up-to", type=int, default=128, metavar="N", help="frames that full attention is tried at"
    )
    options = parser.parse_args()

    seconds: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    memory: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    print(f"width {options.width}, {options.threads} threads, {options.rounds} rounds, fastest and smallest of each")
    print("frames   growing s    MB   scores M |      full s    MB   scores M")
    for frames in sorted(options.frames):
        for _ in range(options.rounds):
            for kind in KINDS:
                if kind == "full" and frames > options.full_up_to:
                    continue
                found = in_own_process(kind, frames, options)
                if found is not None:
                    seconds[kind][frames] = min(found["seconds"], seconds[kind].get(frames, math.inf))
                    memory[kind][frames] = min(found["bytes"], memory[kind].get(frames, math.inf))
        cells = [
            f"{seconds[kind].get(frames, math.nan):10.2f} {memory[kind].get(frames, math.nan) / 1e6:6.0f} "
            f"{scores(kind, frames, options.width) / 1e6:10.1f}"
            for kind in KINDS
        ]
        print(f"{frames:6d} {cells[0]} | {cells[1]}", flush=True)

    counted = {
        kind: {frames: float(scores(kind, frames, options.width)) for frames in options.frames} for kind in KINDS
    }
    found = {
        kind: {"time": exponent(seconds[kind]), "memory": exponent(memory[kind]), "scores": exponent(counted[kind])}
        for kind in KINDS
    }
    for kind in KINDS:
        print(f"{kind}: " + ", ".join(f"{what} grows as frames^{value:.2f}" for what, value in found[kind].items()))
    ours = found["growing"]
    met = max(ours["time"], ours["memory"]) <= GOAL
    print(f"exponents {ours['time']:.3f} and {ours['memory']:.3f}; goal at most {GOAL}: {'met' if met else 'NOT met'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
