"""Runs a recipe: builds the model, chooses what learns, trains, and leaves what learned, and the whole model, in the
run's folder."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging

from videollm.data.ledger import Ledger
from videollm.errors import ConfigError, MissingDependencyError
from videollm.training import lavila, lf_vila, processes, video_llama
from videollm.training.freeze import table_of_parts
from videollm.training.order import InOrder, LengthGrouped
from videollm.training.pieces import Pieces, positions
from videollm.training.progress import Progress, boards
from videollm.training.recipe import LavilaRecipe, LfVilaRecipe, Recipe, VideoLlamaRecipe
from videollm.training.report import write_report
from videollm.training.trainer import RUN_FILE, StageTrainer, StopOnInterrupt, checkpoints

LEDGER_FILE = "ledger.jsonl"
MODEL_FOLDER = "model"


def train(recipe: Recipe, resume: bool = True, data: Any = None, pieces: Pieces | None = None) -> Path:
    """Run a recipe to its end, in this process or together with those that a launcher started beside it.

    Args:
        recipe: what to do.
        resume: go on from the newest checkpoint in the run's folder, if there is one; otherwise they are deleted.
        data: what LaViLa or LF-VILA learns from in place of the recipe's datasets: finite, with a length, by number
            what `videollm.data.clip_items.ClipItems.made` or `videollm.data.long_items.LongItems.made` takes; it is
            gone through again and again; without a length it is taken position by position.
        pieces: what the run is made of, in place of what its family makes of the recipe: another objective, say.

    Returns:
        the run's folder, which then holds the trained parts, and in ``model`` the whole model where there is one.

    Raises:
        ConfigError: a recipe that cannot be run here, or that is not the one that its checkpoints are of.
        DataError: too much of the data cannot be used.
        KeyboardInterrupt: behind a checkpoint.
    """
    _require(recipe)
    torch.set_num_threads(recipe.threads)
    output = Path(recipe.output)
    if not processes.is_first():
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    if recipe.deepspeed:
        processes.start_deepspeed()
    checkpoint = _checkpoint(recipe, output, resume)
    arguments = _arguments(recipe, checkpoint)  # before the model is made: ZeRO-3 spreads it at once
    set_seed(recipe.seed)
    started = time.monotonic()
    ledger = Ledger(output / LEDGER_FILE, recipe.max_skipped_share)
    if pieces is None:
        pieces = _pieces(recipe, ledger, data)
    if processes.is_first():
        print(table_of_parts(pieces.model), flush=True)
        if recipe.bf16 and not processes.computes_bf16():
            print("computing in float32: this CPU has no instructions for bfloat16", flush=True)
    progress = Progress(output.name, output / LEDGER_FILE if pieces.datasets else None)
    trainer = StageTrainer(
        recipe=recipe,
        order=_order(recipe, pieces),
        datasets=pieces.datasets if pieces.by_dataset else (),
        low_rank_scale=pieces.low_rank_scale,
        model=pieces.objective,
        args=arguments,
        train_dataset=pieces.data,
        data_collator=pieces.collate,
        callbacks=[progress, *boards(recipe.report_to, output)],
    )
    trainer.remove_callback(PrinterCallback)
    interrupt = StopOnInterrupt()
    if processes.count() == 1:  # a launcher passes its Ctrl-C on to processes that are at different steps
        trainer.add_callback(interrupt)
    if processes.rank():
        torch.manual_seed(recipe.seed + processes.rank())  # not the dropout of the first one again
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        interrupt.leave()
    if interrupt.asked and trainer.state.global_step < recipe.steps:
        raise KeyboardInterrupt
    trainer.save_model()
    processes.wait()
    if processes.is_first():  # the others are free: to write a whole model may take longer than they would wait
        _finish(recipe, trainer, pieces)
        print(f"{recipe.stage}: {recipe.steps} steps in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    return output


def _pieces(recipe: Recipe, ledger: Ledger, data: Any) -> Pieces:
    if isinstance(recipe, LavilaRecipe):
        return lavila.pieces(recipe, ledger, data)
    if isinstance(recipe, LfVilaRecipe):
        return lf_vila.pieces(recipe, ledger, data)
    assert isinstance(recipe, VideoLlamaRecipe)
    return video_llama.pieces(recipe, ledger, data)


# ---- before


def _require(recipe: Recipe) -> None:
    """Optional packages, before anything is loaded."""
    needed = {"accelerate": True, "peft": getattr(recipe, "lora_rank", 0) > 0, "deepspeed": bool(recipe.deepspeed)}
    for package, wanted in {**needed, "bitsandbytes": getattr(recipe, "bits", None) is not None}.items():
        if wanted and importlib.util.find_spec(package) is None:
            extra = "bits" if package == "bitsandbytes" else "train"
            raise MissingDependencyError(f"this recipe needs {package}; pip install 'videollm[{extra}]'")


def _checkpoint(recipe: Recipe, output: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from; where it is of another number of processes, DeepSpeed's is made to fit."""
    found = checkpoints(output)
    if not resume:
        processes.wait()
        if processes.is_first():
            for old in found:
                shutil.rmtree(old)
        found = []
    if not found:
        return None
    newest = found[-1]
    try:
        told = json.loads((newest / RUN_FILE).read_text(encoding="utf-8"))
        before, count = told["recipe"], told["processes"]
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"{newest} is not of this version of videollm train; begin anew with --restart") from None
    now = recipe.as_json()
    changed = [f"{key} {before.get(key)!r} -> {now[key]!r}" for key in now if before.get(key) != now[key]]
    if count != processes.count():
        changed.append(f"processes {count} -> {processes.count()}")
    if bool(before.get("deepspeed")) != bool(recipe.deepspeed):
        did, does = ("with", "without") if before.get("deepspeed") else ("without", "with")
        raise ConfigError(
            f"{newest} was written {did} DeepSpeed and cannot go on {does} it; give the recipe's 'deepspeed' as it "
            "was, or begin anew with --restart"
        )
    if changed and processes.is_first():
        print(f"since {newest.name} the recipe changed: {'; '.join(changed)}", flush=True)
    if recipe.deepspeed and (count != processes.count() or before["deepspeed"] != recipe.deepspeed):
        if processes.is_first():
            _make_universal(newest)
        processes.wait()
    return newest


def _make_universal(checkpoint: Path) -> None:
    """A checkpoint of DeepSpeed's in the form that any number of processes can read, beside it."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    step = (checkpoint / "latest").read_text(encoding="utf-8").strip()
    target, staging = checkpoint / f"{step}_universal", checkpoint / "universal.part"
    if not target.exists():
        shutil.rmtree(staging, ignore_errors=True)
        flags = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        folders = {"input_folder": str(checkpoint / step), "output_folder": str(staging)}
        convert(SimpleNamespace(**folders, **flags, inject_missing_state=True))
        os.replace(staging, target)
    (checkpoint / "latest_universal").write_text(target.name, encoding="utf-8")


def _arguments(recipe: Recipe, checkpoint: Path | None) -> TrainingArguments:
    deepspeed = None
    if recipe.deepspeed:
        deepspeed = processes.deepspeed_config(recipe.deepspeed)
        if checkpoint is not None and (checkpoint / "latest_universal").exists():
            deepspeed.setdefault("checkpoint", {})["load_universal"] = True
    return TrainingArguments(
        output_dir=recipe.output,
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip_norm,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        bf16=recipe.bf16 and processes.computes_bf16(),
        use_cpu=not torch.cuda.is_available(),
        deepspeed=deepspeed,
        ddp_find_unused_parameters=recipe.leaves_parameters_out,
        logging_steps=recipe.log_steps,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        ddp_timeout=processes.PATIENCE_SECONDS,
        dataloader_num_workers=recipe.workers,
        dataloader_prefetch_factor=4 if recipe.workers else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        include_num_input_tokens_seen="non_padding" if recipe.counts_tokens else "no",
    )


def _order(recipe: Recipe, pieces: Pieces) -> InOrder:
    count = positions(recipe)
    if pieces.length is None:
        return InOrder(count)
    return LengthGrouped(count, count // recipe.steps, pieces.length, recipe.seed)


# ---- after


def _finish(recipe: Recipe, trainer: StageTrainer, pieces: Pieces) -> None:
    """The whole model where there is one, and what is to be told about the run."""
    output = Path(recipe.output)
    if pieces.save_model is not None:
        pieces.save_model(output / MODEL_FOLDER)
    write_report(
        output,
        recipe=recipe,
        model=pieces.model,
        history=trainer.state.log_history,
        used=pieces.used(positions(recipe)),
        ledger=output / LEDGER_FILE,
        batch_samples=positions(recipe) // recipe.steps,
        processes=processes.count(),
    )
