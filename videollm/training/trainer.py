"""The trainer of every stage: the library's, saving the trained parts only, and each checkpoint whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

PARTS_FILE = "trained.safetensors"


def trained_state(objective: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a stage trains: parts of the model and the objective's own heads."""
    return {
        name: parameter.detach().contiguous().clone()
        for name, parameter in objective.named_parameters()
        if parameter.requires_grad
    }


def load_parts(objective: nn.Module, folder: str | Path, heads: bool = False) -> list[str]:
    """Put the parts that a finished stage trained into a model; its heads too, if asked.

    Returns:
        the names that were loaded.

    Raises:
        FileNotFoundError: the folder holds no trained parts.
        ValueError: a part that the model does not have.
    """
    tensors = load_file(Path(folder) / PARTS_FILE)
    chosen = {name: tensor for name, tensor in tensors.items() if heads or name.startswith("model.")}
    unknown = objective.load_state_dict(chosen, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{folder}: the model has no {unknown[0]} ({len(unknown)} such); use the recipe's own parts")
    return list(chosen)


class StageTrainer(Trainer):
    """`transformers.Trainer` for an objective (a module that returns its loss and keeps ``metrics``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._staging = Path(self.args.output_dir or ".") / ".staging"

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(**inputs)
        for name, value in self.accelerator.unwrap_model(model).metrics.items():
            self._sums[name].append(float(value))
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs.update({name: round(sum(values) / len(values), 4) for name, values in self._sums.items() if values})
            self._sums.clear()
        super().log(logs, *args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write into a staging folder; the checkpoint gets its name, and older ones go, when it is whole."""
        shutil.rmtree(self._staging, ignore_errors=True)
        super()._save_checkpoint(model, trial)
        target = Path(self.args.output_dir or ".")
        for folder in self._staging.glob("checkpoint-*"):
            shutil.rmtree(target / folder.name, ignore_errors=True)
            os.replace(folder, target / folder.name)
        kept = sorted(target.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        for old in kept[:-2]:
            shutil.rmtree(old)
        shutil.rmtree(self._staging, ignore_errors=True)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_state(self.accelerator.unwrap_model(self.model)), folder / PARTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_parts(model or self.model, resume_from_checkpoint, heads=True)
