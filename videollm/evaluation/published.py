"""A benchmark on published videos from its annotations to its table.

Files are read ahead of the model by threads, each in its own decoding process. What the model said is kept batch by
batch: a stopped run goes on where it stopped, with the same result. An item whose video is missing or broken is left
out and named; above the share that the benchmark allows there are no scores.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from tqdm import tqdm

from videollm.errors import ConfigError, DataError, MediaError, UnusableSampleError
from videollm.evaluation.benchmark import PublishedBenchmark
from videollm.media.write import atomic
from videollm.tools.journal import Journal

B = TypeVar("B", bound=PublishedBenchmark)
Answer = dict[str, Any]
"""What a model said of an item, as plain data; arrays by `packed`."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a benchmark comes to.

    Attributes:
        metrics: by name, in the order of the table; None: not computed, the notes say why.
        rows: one for each item that was measured: what was asked, what was right, what the model said.
        notes: sentences under the table.
    """

    metrics: dict[str, float | None]
    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


class Task(Generic[B]):
    """How one kind of benchmark is read, put to a model, and scored.

    The constructor reads the annotations; `load` the model.

    Attributes:
        benchmark: what to measure.
        ids: of its items, all of them.
    """

    ids: Sequence[str]

    def __init__(self, benchmark: B) -> None:
        self.benchmark = benchmark

    def find(self, index: int) -> None:
        """Look for the files of an item. Raises UnusableSampleError."""
        raise NotImplementedError

    def load(self) -> dict[str, Any]:
        """Load the model; returns plain data that tells its weights from others."""
        raise NotImplementedError

    def read(self, index: int) -> Any:
        """Read what the model looks at. Raises UnusableSampleError or MediaError. Called by threads."""
        raise NotImplementedError

    def predict(self, indices: Sequence[int], read: Sequence[Any]) -> list[Answer]:
        """What the model says of items."""
        raise NotImplementedError

    def result(self, indices: Sequence[int], answers: Sequence[Answer]) -> Result:
        """Scores of all that was answered."""
        raise NotImplementedError


def packed(array: np.ndarray) -> dict[str, Any]:
    """Numbers as plain data, exactly: float32 of a shape."""
    values = np.ascontiguousarray(array, np.float32)
    return {"shape": list(values.shape), "float32": base64.b64encode(values.tobytes()).decode()}


def unpacked(data: dict[str, Any]) -> np.ndarray:
    """The other way round."""
    return np.frombuffer(base64.b64decode(data["float32"]), np.float32).reshape(data["shape"])


def evaluate_published(benchmark: PublishedBenchmark, out: Path, report: Callable[[str], None] = print) -> Result:
    """Run a benchmark, print its table, and write ``predictions.jsonl`` and ``scores.json`` into ``out``.

    Raises:
        ConfigError: the folder cannot be made.
        DataError: the annotations cannot be used, or too many items had to be left out.
        ModelNotFoundError: no such model, or one of another kind.
    """
    task = _task(benchmark)
    indices = range(len(task.ids))[: benchmark.first]
    if not indices:
        raise DataError(f"{benchmark.annotations}: nothing in it can be asked; give the published file")
    left_out: dict[int, str] = {}
    for index in indices:
        try:
            task.find(index)
        except UnusableSampleError as error:
            left_out[index] = str(error)
    _check_left_out(benchmark, left_out, len(indices))
    identity = task.load()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"results cannot be written to {out} ({error}); give another folder with --out") from None
    work = {
        "benchmark": _what_counts(benchmark),
        "model": identity,
        "files": _digests(benchmark),
        "missing": sorted(left_out),
    }
    with Journal(out / "unfinished.jsonl", work) as journal:
        if journal.forgot:
            report("what is unfinished there is of another benchmark, model or set of videos: starting anew")
        try:
            answers = _answers(task, indices, left_out, journal)
            measured = sorted(answers)
            if not measured:
                raise DataError(f"{benchmark.name}: no item could be measured; the first: {_first(left_out)}")
            found = task.result(measured, [answers[index] for index in measured])
            _write(out, benchmark, found, [(task.ids[index], left_out[index]) for index in sorted(left_out)])
        except BaseException:
            if journal.is_empty:
                journal.remove()
            raise
        journal.remove()
    for line in table(found.metrics):
        report(line)
    for note in found.notes:
        report(note)
    if left_out:
        report(f"{len(left_out)} of {len(indices)} items were left out, for example: {_first(left_out)}")
    if len(indices) < len(task.ids):
        report(f"only the first {len(indices)} of {len(task.ids)} items: no scores of this benchmark")
    report(f"{len(measured)} items; what was said of each is in {out / 'predictions.jsonl'}")
    return found


def table(metrics: dict[str, float | None]) -> list[str]:
    """Lines: a name, and shares and overlaps with four digits, ranks with two."""
    width = max(map(len, metrics)) + 2
    lines = []
    for name, value in metrics.items():
        text = "not computed" if value is None else f"{value:.2f}" if "rank" in name else f"{value:.4f}"
        lines.append(f"{name:<{width}}{text}")
    return lines


def _task(benchmark: PublishedBenchmark) -> Task[Any]:
    from videollm.evaluation import egocentric, long_videos

    tasks: dict[str, Callable[[Any], Task[Any]]] = {**egocentric.TASKS, **long_videos.TASKS}
    return tasks[benchmark.task](benchmark)


def _first(left_out: dict[int, str]) -> str:
    return left_out[min(left_out)]


def _answers(task: Task[Any], indices: Sequence[int], left_out: dict[int, str], journal: Journal) -> dict[int, Answer]:
    """What the model says of every item that can be read, by number; ``left_out`` gets those that cannot."""
    benchmark, answers = task.benchmark, dict[int, Answer]()
    size, done = benchmark.batch_size, journal.entries
    # Always the same items together, wherever a run began: the numbers are then the same to the last bit.
    batches = [indices[start : start + size] for start in range(0, len(indices), size)]
    for entry in done:
        answers |= {int(index): answer for index, answer in entry["answers"].items()}
        left_out |= {int(index): why for index, why in entry["left_out"].items()}
    with tqdm(total=len(indices), desc=benchmark.name, unit="item", dynamic_ncols=True, disable=None) as bar:
        bar.update(sum(map(len, batches[: len(done)])))
        for batch, read, why in _read_ahead(task, batches[len(done) :], left_out, benchmark.workers):
            left_out |= why
            _check_left_out(benchmark, left_out, len(indices))
            usable = [index for index in batch if index not in left_out]
            said = task.predict(usable, [read[index] for index in usable]) if usable else []
            new = dict(zip(usable, said, strict=True))
            journal.add({"answers": new, "left_out": why})
            answers |= new
            bar.update(len(batch))
    _check_left_out(benchmark, left_out, len(indices))
    return answers


def _check_left_out(benchmark: PublishedBenchmark, left_out: dict[int, str], total: int) -> None:
    if len(left_out) > benchmark.most_left_out * total:
        raise DataError(
            f"{len(left_out)} of {total} items cannot be measured, most_left_out allows "
            f"{benchmark.most_left_out:g} of them; the first: {_first(left_out)}"
        )


def _read_ahead(
    task: Task[Any], batches: Sequence[Sequence[int]], left_out: dict[int, str], workers: int
) -> Iterator[tuple[Sequence[int], dict[int, Any], dict[int, str]]]:
    """Batches with what was read of each item, or why it could not be; at most two batches are in memory."""

    def read(index: int) -> tuple[int, Any, str | None]:
        try:
            return index, task.read(index), None
        except (UnusableSampleError, MediaError) as error:
            return index, None, str(error)

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Sequence[int], list[Future[tuple[int, Any, str | None]]]]] = deque()
        coming = iter(batches)
        try:
            while True:
                while len(waiting) < 2 and (batch := next(coming, None)) is not None:
                    waiting.append((batch, [pool.submit(read, index) for index in batch if index not in left_out]))
                if not waiting:
                    return
                batch, futures = waiting.popleft()
                results = [future.result() for future in futures]
                good = {index: value for index, value, why in results if why is None}
                yield batch, good, {index: why for index, _, why in results if why is not None}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _what_counts(benchmark: PublishedBenchmark) -> dict[str, Any]:
    return dataclasses.asdict(dataclasses.replace(benchmark, workers=1, most_left_out=0.0))


def _digests(benchmark: PublishedBenchmark) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in benchmark.files:
        value = getattr(benchmark, name)
        for path in (value,) if isinstance(value, str) else value:
            with open(path, "rb") as file:
                found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _write(out: Path, benchmark: PublishedBenchmark, found: Result, left_out: list[tuple[str, str]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows]
    lines += [json.dumps({"id": name, "left_out": why}, ensure_ascii=False) + "\n" for name, why in left_out]
    scores = {
        "benchmark": dataclasses.asdict(benchmark),
        "metrics": found.metrics,
        "notes": found.notes,
        "left_out": len(left_out),
    }
    for name, text in (("predictions.jsonl", "".join(lines)), ("scores.json", json.dumps(scores, indent=1) + "\n")):
        try:
            with atomic(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"results cannot be written to {out} ({error}); give another folder with --out") from None
