"""A benchmark, whichever its task, measured: its table on the screen, its predictions and scores in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from videollm.evaluation.benchmark import Benchmark, ToolBenchmark, WorldBenchmark


def evaluate(benchmark: Benchmark, out: Path, report: Callable[[str], None] = print) -> None:
    """Run a benchmark.

    Args:
        benchmark: what to measure.
        out: folder of ``predictions.jsonl`` and ``scores.json``; made if it is missing.
        report: gets the text of the report.

    Raises:
        VideoLLMError: the model, the annotations or the folder cannot be used.
    """
    if isinstance(benchmark, WorldBenchmark):
        from videollm.evaluation.world import evaluate_world

        evaluate_world(benchmark, out, report)
    elif isinstance(benchmark, ToolBenchmark):
        from videollm.evaluation.tool_use import evaluate_tools

        evaluate_tools(benchmark, out, report)
    else:
        from videollm.evaluation.published import evaluate_published

        evaluate_published(benchmark, out, report)
