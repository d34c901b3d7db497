"""What a finished run leaves beside its weights: a picture of its losses, and a model card."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
import os
import platform
import resource
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from videollm.data.ledger import read_ledger
from videollm.models.checkup import licences
from videollm.training.freeze import table_of_parts
from videollm.training.progress import LOSS_OF

PICTURE, CARD = "loss.png", "MODEL_CARD.md"
PACKAGES = (
    "videollm",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "deepspeed",
    "bitsandbytes",
    "safetensors",
    "tokenizers",
)
Curve = Sequence[tuple[int, float]]
"""Steps and values."""

# Of Okabe and Ito's colours, which people of any colour vision tell apart, those that show on white.
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0))
_INK, _PALE = (40, 40, 40), (225, 225, 225)
_SIZE_PX, _FINE = (960, 600), 2


# ---- the picture


def curves_of(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The loss of all data, and of each dataset where there are several, from the log of a run."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for log in history:
        for key, value in log.items():
            if (key == "loss" or key.startswith(LOSS_OF)) and math.isfinite(value):
                curves[key.removeprefix(LOSS_OF)].append((log["step"], float(value)))
    return dict(curves) if len(curves) > 2 else {"loss": curves.get("loss", [])}


def smooth(curve: Curve) -> list[tuple[int, float]]:
    """The mean of the values around each, over a twentieth of the curve."""
    reach = len(curve) // 40
    near = ([value for _, value in curve[max(0, i - reach) : i + reach + 1]] for i in range(len(curve)))
    return [(step, sum(values) / len(values)) for (step, _), values in zip(curve, near, strict=True)]


def draw_losses(path: str | Path, title: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG: losses over steps, smoothed over what was logged, and the learning rate below.

    Args:
        path: of the picture.
        title: what stands above it.
        history: the log of the run, as `transformers.TrainerState` keeps it.
    """
    from PIL import Image, ImageDraw

    width, height = (side * _FINE for side in _SIZE_PX)
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    left, right = 70 * _FINE, width - 170 * _FINE
    pen.text((left, 20 * _FINE), title, _INK, font=_font(17), anchor="lm")
    curves = curves_of(history)
    rates = [(log["step"], log["learning_rate"]) for log in history if "learning_rate" in log and "loss" in log]
    last = max((log.get("step", 0) for log in history), default=1)
    colours = {"loss": _INK, **dict(zip((name for name in curves if name != "loss"), itertools.cycle(_COLOURS)))}
    losses = _Panel(pen, (left, 50 * _FINE, right, 430 * _FINE), last, [v for c in curves.values() for _, v in c])
    for name, curve in curves.items():
        losses.line(curve, _mixed(colours[name]), 1)
    ends = {name: losses.line(smooth(curve), colours[name], 2.5) for name, curve in curves.items() if curve}
    losses.name_ends({f"{name}  {smooth(curves[name])[-1][1]:.3f}": (ends[name], colours[name]) for name in ends})
    below = _Panel(pen, (left, 475 * _FINE, right, 560 * _FINE), last, [0.0, *(rate for _, rate in rates)], 2)
    end = below.line(rates, _COLOURS[0], 1.5)
    below.name_ends({"learning rate": (end, _COLOURS[0])} if rates else {})
    below.name_steps()
    _replace(Path(path), lambda temporary: picture.resize(_SIZE_PX, Image.Resampling.LANCZOS).save(temporary, "PNG"))


class _Panel:
    """Axes: steps from 0 to the right, values upwards from the least to the greatest."""

    def __init__(
        self, pen: Any, box: tuple[int, int, int, int], last: int, values: Sequence[float], ticks: int = 5
    ) -> None:
        self._pen, self._box, self._last = pen, box, max(last, 1)
        left, _, right, _ = box
        ordered = sorted(values) or [0.0, 1.0]
        # Of a long run a few wild values, mostly of its beginning, may leave the picture.
        high = ordered[int(0.995 * (len(ordered) - 1))] if len(ordered) > 200 else ordered[-1]
        step = _round_step(high - ordered[0] or abs(high) or 1.0, ticks)
        self._low, self._high = math.floor(ordered[0] / step) * step, math.ceil(high / step) * step
        if self._high == self._low:
            self._high += step
        for number in range(round((self._high - self._low) / step) + 1):
            value = self._low + number * step
            y = self._place(0, value)[1]
            pen.line((left, y, right, y), _INK if number == 0 else _PALE, _FINE)
            pen.text((left - 8 * _FINE, y), _number(value), _INK, font=_font(12), anchor="rm")

    def _place(self, step: int, value: float) -> tuple[float, float]:
        left, top, right, bottom = self._box
        share = (value - self._low) / (self._high - self._low)
        return left + step / self._last * (right - left), bottom - min(max(share, 0.0), 1.0) * (bottom - top)

    def line(self, curve: Curve, colour: tuple[int, ...], thick: float) -> float:
        """Draws a curve and returns the height at which it ends."""
        places = [self._place(step, value) for step, value in curve]
        if len(places) > 1:
            self._pen.line(places, colour, round(thick * _FINE), joint="curve")
        for x, y in places if len(places) == 1 else ():
            self._pen.ellipse((x - 3 * _FINE, y - 3 * _FINE, x + 3 * _FINE, y + 3 * _FINE), colour)
        return places[-1][1] if places else self._box[3]

    def name_ends(self, ends: Mapping[str, tuple[float, tuple[int, ...]]]) -> None:
        """Names beside the ends of their curves, moved apart where they would touch."""
        lowest = -math.inf
        for name, (y, colour) in sorted(ends.items(), key=lambda item: item[1][0]):
            lowest = max(y, lowest + 17 * _FINE)
            self._pen.text((self._box[2] + 8 * _FINE, lowest), name, colour, font=_font(13), anchor="lm")

    def name_steps(self) -> None:
        """Steps below the axis."""
        step = max(1, round(_round_step(self._last, 6)))
        for number in range(0, self._last + 1, step):
            x = self._place(number, self._low)[0]
            self._pen.text((x, self._box[3] + 8 * _FINE), f"{number:,}", _INK, font=_font(12), anchor="ma")
        end = (self._box[2] + 34 * _FINE, self._box[3] + 8 * _FINE)
        self._pen.text(end, "steps", _INK, font=_font(12), anchor="la")


def _round_step(span: float, ticks: int) -> float:
    """1, 2 or 5 times a power of ten, so that a span has about so many ticks."""
    rough = span / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= rough * 0.999)


def _number(value: float) -> str:
    """On an axis: 0, 2.5, 1e-4."""
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _mixed(colour: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(round(255 - 0.3 * (255 - part)) for part in colour)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size * _FINE)


# ---- the card


def write_report(
    folder: str | Path,
    *,
    recipe: Any,
    model: nn.Module,
    history: Sequence[Mapping[str, Any]],
    used: Mapping[str, int],
    ledger: str | Path | None,
    batch_samples: int,
    processes: int,
) -> None:
    """Write the picture and the card into the folder of a finished run.

    Args:
        folder: of the run.
        recipe: the dataclass that was run.
        model: as it was trained: what learned still asks for gradients.
        history: the log of the run, as `transformers.TrainerState` keeps it, with what `Progress` adds.
        used: samples used of each dataset, those met again counted again.
        ledger: file of the samples that were not used; None, or a file that is not there: none.
        batch_samples: samples in a step, of all processes.
        processes: how many trained together.
    """
    folder = Path(folder)
    title = f"{folder.name}: {getattr(recipe, 'stage', 'training')}"
    draw_losses(folder / PICTURE, title, history)
    entries = read_ledger(ledger) if ledger is not None and Path(ledger).exists() else []
    lines = [
        f"# {folder.name}", "", f"![losses]({PICTURE})", "",
        f"Trained by `videollm train` until {date.today().isoformat()}.", "",
        "## What learned", "", "```", table_of_parts(model), "```", "",
        "## Data", "", *_data(used, entries), "",
        "## Losses", "", *_losses(history), "",
        "## Run", "", *_run(recipe, history, batch_samples, processes), "",
        "## Licences", "", *_licences(model), "",
        "## Recipe", "", "```yaml", _yaml(recipe), "```", "",
    ]  # fmt: skip
    text = "\n".join(lines)
    _replace(folder / CARD, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _data(used: Mapping[str, int], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        reasons[entry["source"]][entry.get("reason", "unknown")] += 1
    rows = ["| dataset | samples used | files or lines not used | why |", "|---|--:|--:|---|"]
    for name in sorted({*used, *reasons}):
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons[name].most_common())
        rows.append(f"| {name} | {used.get(name, 0):,} | {reasons[name].total():,} | {why} |")
    return rows


def _losses(history: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = ["| | first | last | mean of the last tenth |", "|---|--:|--:|--:|"]
    for name, curve in curves_of(history).items():
        values = [value for _, value in curve]
        if values:
            tail = values[-max(1, len(values) // 10) :]
            rows.append(f"| {name} | {values[0]:.4f} | {values[-1]:.4f} | {sum(tail) / len(tail):.4f} |")
    return rows


def _run(recipe: Any, history: Sequence[Mapping[str, Any]], batch_samples: int, processes: int) -> list[str]:
    steps = max((log.get("step", 0) for log in history), default=0)
    seconds = max((log.get("seconds", 0.0) for log in history), default=0.0)
    speed = f", {steps * batch_samples / seconds:.1f} samples a second" if seconds else ""
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        memory = torch.cuda.max_memory_allocated()
    else:
        device = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} used"
        # Kilobytes on Linux, bytes on a Mac.
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [
        f"* {steps:,} steps of {batch_samples:,} samples on {processes} process{'es' if processes > 1 else ''}",
        f"* {_time(seconds)} of training{speed}",
        f"* hardware: {device}; {memory / 2**30:.1f} GiB at most in the process that wrote this",
        f"* seed {getattr(recipe, 'seed', 'not set')}",
        f"* Python {platform.python_version()}, {', '.join(versions)}, on {platform.platform()}",
    ]


def _licences(model: nn.Module) -> list[str]:
    config: Any = model.config
    found = licences(config) if config.model_type == "video_llama" else ()
    if not found:
        return ["No part has the shape of a published model: the weights are licensed as what they were trained from."]
    return [f"* {one.part}: {one.text}" for one in found]


def _yaml(recipe: Any) -> str:
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(recipe).items()
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110).rstrip()


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


def _replace(target: Path, write: Any) -> None:
    """Whole or not at all."""
    staging = target.with_name(f".{target.name}.part")
    write(staging)
    os.replace(staging, target)
