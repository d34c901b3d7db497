"""The trainer of every stage: the library's, in the recipe's own order, saving the trained parts only, and each
checkpoint whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from videollm.models.lavila.losses import cached_contrastive_step
from videollm.training import processes
from videollm.training.order import InOrder
from videollm.training.parts import load_trained_state, save_parts, trained_state
from videollm.training.progress import LOSS_OF
from videollm.training.recipe import Recipe
from videollm.training.schedule import learning_rates

RUN_FILE = "run.json"
"""In each checkpoint: the recipe, and how many processes trained."""
_KEPT = 2


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first; each is whole, since it got its name when it was."""
    return sorted(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


class StageTrainer(Trainer):
    """`transformers.Trainer` for an objective (a module that returns its loss and keeps ``metrics``).

    Args:
        recipe: of the run.
        order: of the samples.
        datasets: their names, where the objective tells them apart.
        low_rank_scale: of the low-rank updates among what is trained.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        order: InOrder,
        datasets: Sequence[str] = (),
        low_rank_scale: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.recipe, self.order, self.datasets, self.low_rank_scale = recipe, order, tuple(datasets), low_rank_scale
        self._metrics: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._by_source = torch.zeros(len(self.datasets), 3, device=self.args.device)
        self._folder = Path(self.args.output_dir or ".")
        self._staging = self._folder / ".staging"

    # ---- what is learned from

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            worker_init_fn=_leave_interrupts_to_the_trainer,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Under DeepSpeed the library gives every number the weights' format; seconds would come out rounded."""
        exact = {name: value for name, value in inputs.items() if name.endswith("_seconds")}
        others = super()._prepare_inputs({name: value for name, value in inputs.items() if name not in exact})
        return {**others, **{name: value.to(self.args.device) for name, value in exact.items()}}

    # ---- how

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The parameters that weight decay is for: as the objective says, else as the library does."""
        decays = getattr(model, "decays", None)
        if decays is None:
            return Trainer.get_decay_parameter_names(self, model)
        return [name for name, parameter in model.named_parameters() if decays(name, parameter)]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The library's AdamW; or SGD, where the recipe has a momentum. What an objective gives a ``rate`` of its own
        gets a group of its own."""
        momentum = self.recipe.momentum
        objective = self.model if model is None else model
        if self.optimizer is not None or (momentum is None and not hasattr(objective, "rate")):
            return super().create_optimizer(model)
        assert objective is not None
        decaying = set(self.get_decay_parameter_names(objective))
        rate = getattr(objective, "rate", lambda name: 1.0)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in objective.named_parameters():
            if parameter.requires_grad:
                groups[rate(name), name in decaying].append(parameter)
        arguments = [
            {"params": found, "lr": self.args.learning_rate * times, "weight_decay": decay * self.args.weight_decay}
            for (times, decay), found in sorted(groups.items(), reverse=True)
        ]
        if momentum is not None:
            self.optimizer = torch.optim.SGD(arguments, self.args.learning_rate, momentum)
        else:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, objective)
            self.optimizer = kind(arguments, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = learning_rates(
                optimizer or self.optimizer,
                self.recipe.schedule,
                warmup_steps=self.recipe.warmup_steps,
                steps=num_training_steps,
                start_rate=self.recipe.warmup_learning_rate,
                floor_rate=self.recipe.last_learning_rate,
                decay_steps=self.recipe.decay_steps,
                decay_rate=self.recipe.decay_rate,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self._note_metrics(self.accelerator.unwrap_model(model))
        if "by_source" in outputs:
            self._by_source += outputs["by_source"]
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As the library's; a contrastive batch that an objective wants in pieces takes two passes over each."""
        objective = self.accelerator.unwrap_model(model)
        size = getattr(objective, "piece_size", None)
        if size is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        batch = self._prepare_inputs(inputs)
        is_human, count = batch.pop("is_human", None), len(batch["pixel_values"])
        pieces = [{name: value[at : at + size] for name, value in batch.items()} for at in range(0, count, size)]

        def embed(piece: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            with self.compute_loss_context_manager():
                found = model(**piece, embed_only=True)
            return found["video_embeds"], found["text_embeds"]

        contrast = cached_contrastive_step(
            embed,
            pieces,
            lambda videos, texts: objective.contrast(videos, texts, is_human),
            backward=self.accelerator.backward,
            without_sync=lambda: self.accelerator.no_sync(model),
        )
        self._note_metrics(objective)
        return contrast.loss

    def _note_metrics(self, objective: Any) -> None:
        for name, value in objective.metrics.items():
            self._metrics[name].append(value.detach())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds what the objective measured here, and the loss of each dataset everywhere, since the last time."""
        if "loss" in logs:
            for name, values in self._metrics.items():
                logs[name] = round(torch.stack(values).float().mean().item(), 4)
            self._metrics.clear()
            if self.datasets:
                whole = self.accelerator.reduce(self._by_source, "sum")
                for name, (loss, tokens, _) in zip(self.datasets, whole.tolist(), strict=True):
                    if tokens:
                        logs[f"{LOSS_OF}{name}"] = loss / tokens
                self._by_source = torch.zeros_like(self._by_source)
        super().log(logs, *args, **kwargs)

    # ---- what is kept

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        state = trained_state(self.accelerator.unwrap_model(self.model))
        if self.args.should_save:
            save_parts(state, output_dir or self._folder, self.low_rank_scale)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write into a staging folder; the checkpoint gets its name, and older ones go, when it is whole."""
        if self.args.should_save:
            shutil.rmtree(self._staging, ignore_errors=True)
        processes.wait()
        super()._save_checkpoint(model, trial)
        processes.wait()
        if self.args.should_save:
            (staged,) = self._staging.iterdir()
            told = {"recipe": self.recipe.as_json(), "processes": self.args.world_size}
            (staged / RUN_FILE).write_text(json.dumps(told, indent=1), encoding="utf-8")
            _reach_the_disk(staged)
            target = self._folder / staged.name
            shutil.rmtree(target, ignore_errors=True)
            os.replace(staged, target)
            for old in checkpoints(self._folder)[:-_KEPT]:
                shutil.rmtree(old)
            self._staging.rmdir()
        processes.wait()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # As the library does, but without what is frozen, which the model's own folder has.
        assert self.model_wrapped is not None
        self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    # ---- and read again

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained_state(model or self.model, resume_from_checkpoint)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if not self.is_deepspeed_enabled or resume_from_checkpoint is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # As the library does, but not asking for what is frozen.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        assert self.model_wrapped is not None
        path, _ = self.model_wrapped.load_checkpoint(resume_from_checkpoint, load_module_strict=False)
        assert path is not None, resume_from_checkpoint
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared


class StopOnInterrupt(TrainerCallback):
    """The first Ctrl-C ends a run behind a checkpoint of the step at hand, a second one at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def _note(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
        print("\nstopping behind a checkpoint of this step; press Ctrl-C again to stop at once", flush=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._before = signal.signal(signal.SIGINT, self._note)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True

    def leave(self) -> None:
        """Ctrl-C does again what it did before the run, however that ended."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def _leave_interrupts_to_the_trainer(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _reach_the_disk(folder: Path) -> None:
    """A checkpoint that has its name must also be whole after the power went."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
