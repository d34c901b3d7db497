"""What a run shows while it runs: a bar on a terminal, a line at every log step where the output goes into a file.

Speed and time left are those of the last ten log steps. ``loss/webvid`` in the log is the loss of the dataset webvid.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm
from transformers import TrainerCallback

from videollm.errors import MissingDependencyError

Board = Literal["tensorboard", "wandb"]

LOSS_OF = "loss/"
"""How the logged loss of one dataset begins."""
_PLAIN = ("loss", "learning_rate", "grad_norm", "epoch", "num_input_tokens_seen", "train_runtime")
_SPEEDS = ("seconds", "samples_per_second", "tokens_per_second")


class Progress(TrainerCallback):
    """Shows a run on the process of rank 0, and adds speed and time to what is logged and kept.

    ``seconds`` in the log counts the time of training in all sessions of a run that was interrupted.

    Args:
        name: of the run.
        ledger: file of the samples that were not used; None: there is none.
        bar: draw a bar; None: where stderr is a terminal.
    """

    def __init__(self, name: str, ledger: str | Path | None = None, bar: bool | None = None) -> None:
        self._name = name
        self._skipped = None if ledger is None else _Skipped(Path(ledger))
        self._with_bar = sys.stderr.isatty() if bar is None else bar
        self._bar: Any = None
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=10)
        self._began = self._before = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()
        self._before = next((log["seconds"] for log in reversed(state.log_history) if "seconds" in log), 0.0)
        self._marks.clear()
        self._marks.append((self._began, state.global_step, state.num_input_tokens_seen))
        if not state.is_world_process_zero:
            return
        if self._with_bar:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self._name, dynamic_ncols=True, leave=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
            )  # fmt: skip
        elif state.global_step:
            print(f"{self._name}: goes on from step {state.global_step:,} of {state.max_steps:,}", flush=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        now = time.monotonic()
        first, first_step, first_tokens = self._marks[0]
        self._marks.append((now, state.global_step, state.num_input_tokens_seen))
        steps, taken = state.global_step - first_step, max(now - first, 1e-9)
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        speeds = {"seconds": self._before + now - self._began, "samples_per_second": steps * batch / taken}
        if tokens := state.num_input_tokens_seen - first_tokens:
            speeds["tokens_per_second"] = tokens / taken
        # Into what other callbacks show and into the history that checkpoints keep.
        logs.update(speeds)
        state.log_history[-1].update(speeds)
        shown = self._words(logs)
        if self._bar is not None:
            self._bar.set_postfix_str("; ".join(shown))
            return
        left = (state.max_steps - state.global_step) * taken / max(steps, 1)
        step = f"{self._name}: step {state.global_step:,} of {state.max_steps:,}"
        extra = [f"{key} {value:.4g}" for key, value in _others(logs).items()]
        rate = [f"learning rate {logs['learning_rate']:.2e}"] if "learning_rate" in logs else []
        print("; ".join([step, *shown, *rate, *extra, f"{tqdm.format_interval(left)} left"]), flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and self._bar is None:
            print(f"{self._name}: checkpoint of step {state.global_step:,} is whole", flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _words(self, logs: Mapping[str, Any]) -> list[str]:
        each = [f"{key.removeprefix(LOSS_OF)} {logs[key]:.3f}" for key in sorted(logs) if key.startswith(LOSS_OF)]
        words = [f"loss {float(logs['loss']):.3f}" + (f" ({', '.join(each)})" if each else "")]
        words.append(f"{_round(logs['samples_per_second'])} samples/s")
        if "tokens_per_second" in logs:
            words.append(f"{_round(logs['tokens_per_second'])} tokens/s")
        if self._skipped is not None:
            words.append(f"{self._skipped.count():,} skipped")
        return words


def _round(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _others(logs: Mapping[str, Any]) -> dict[str, float]:
    """What a stage measures beside its loss."""
    known = (*_PLAIN, *_SPEEDS)
    return {
        key: value
        for key, value in logs.items()
        if key not in known and not key.startswith((LOSS_OF, "train_")) and isinstance(value, (int, float))
    }


class _Skipped:
    """Counts the samples in a ledger while workers of several processes append to it; each sample once."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self._seen: set[tuple[str, int]] = set()

    def count(self) -> int:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:  # nothing was skipped yet
            return len(self._seen)
        self._read += len(whole) + bool(whole)
        for line in whole.split(b"\n"):
            try:
                entry = json.loads(line)
                self._seen.add((entry["source"], entry["index"]))
            except (ValueError, TypeError, KeyError):  # a line that a killed process left
                continue
        return len(self._seen)


def boards(names: Sequence[Board], folder: str | Path) -> list[TrainerCallback]:
    """The library's callbacks for what else is to show a run. They come behind `Progress`, whose speeds they show too.

    Args:
        names: of the boards.
        folder: of the run; TensorBoard's files go into ``tensorboard`` in it.

    Raises:
        MissingDependencyError: one that is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            how = "'videollm[tensorboard]'" if name == "tensorboard" else name
            raise MissingDependencyError(
                f"the recipe asks for {name}, which is not installed; pip install {how}, or take it out of the recipe"
            )
    found: list[TrainerCallback] = []
    for name in names:
        if name == "tensorboard":
            from transformers.integrations import TensorBoardCallback

            board = TensorBoardCallback()
            board.logging_dir = str(Path(folder) / "tensorboard")
            found.append(board)
        else:
            from transformers.integrations import WandbCallback

            found.append(WandbCallback())
    return found
