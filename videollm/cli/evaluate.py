"""`videollm evaluate BENCHMARK.yaml`: exact scores on films of the world, on published benchmarks, or, with --media, on
anybody's clips.

The report goes to stdout; every answer is kept as a JSON line.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("benchmark", metavar="BENCHMARK.yaml", help="what to measure; see eval_configs/")
    parser.add_argument("--model", metavar="NAME|DIR", help="measure this model, not the one that the file names")
    parser.add_argument("--out", metavar="DIR", help="folder of the results; default: runs/evaluation/NAME")
    parser.add_argument(
        "--media", metavar="DIR", help="ask about the videos in this folder what can be computed of them, instead"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes, not the number that the file names")


def run(args: argparse.Namespace) -> None:
    """Measure.

    Raises:
        VideoLLMError: the benchmark, the model or the folder of media cannot be used.
    """
    import dataclasses

    from videollm.errors import ConfigError
    from videollm.evaluation.benchmark import WorldBenchmark, load_benchmark

    benchmark = load_benchmark(args.benchmark)
    if args.model is not None:
        benchmark = dataclasses.replace(benchmark, model=args.model)
    if args.workers is not None:
        if args.workers < 1:
            raise ConfigError(f"--workers must be at least 1, found {args.workers}; leave it out for the file's number")
        benchmark = dataclasses.replace(benchmark, workers=args.workers)
    out = Path(args.out) if args.out else Path("runs") / "evaluation" / benchmark.name
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.media is not None:
        if not isinstance(benchmark, WorldBenchmark):
            raise ConfigError(
                f"--media asks about a folder of your own; {args.benchmark} has its own videos: leave it out"
            )
        from videollm.evaluation.real_clips import evaluate_media

        evaluate_media(benchmark, Path(args.media), out)
    else:
        from videollm.evaluation.run import evaluate

        evaluate(benchmark, out)
