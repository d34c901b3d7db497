"""The model that a run of LaViLa or LF-VILA starts from: a folder's shape, and the weights of one folder or of several.

What no folder has begins at random, by the run's seed; what the model has no place for is left. Both are said.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import logging

from videollm.errors import ConfigError, ModelNotFoundError
from videollm.training import processes
from videollm.training.parts import PARTS_FILE, Holder, load_parts

Tensors = dict[str, torch.Tensor]


def config_of(folder: str, kind: type, changes: Mapping[str, Any]) -> Any:
    """The config of a folder, with the fields that a recipe changes.

    Args:
        folder: with a config.json.
        kind: its class.
        changes: fields, those of sections in sections.

    Raises:
        ModelNotFoundError: there is none, or it is of another model.
        ConfigError: a field that it does not have, or a value that does not fit.
    """
    path = Path(folder) / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        found = fields["model_type"]
    except OSError as error:
        raise ModelNotFoundError(f"no model in {folder}: {path.name}: {error.strerror}; give its folder") from None
    except (ValueError, KeyError, TypeError):
        raise ModelNotFoundError(f"no model in {folder}: config.json cannot be read; save it again") from None
    if found != kind.model_type:
        raise ModelNotFoundError(f"the model in {folder} is a {found}, this stage needs a {kind.model_type}; give one")
    try:
        return changed(kind(**{name: value for name, value in fields.items() if name != "model_type"}), changes)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = " ".join(str(error).split())[:300]
        raise ConfigError(f"the shape of the model in {folder} cannot be used: {what}") from None


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A config with other values in some of its fields.

    Raises:
        ValueError: a field that it does not have, or a value that does not fit.
    """
    return type(config)(**_changed(config.to_dict(), changes, "shape")) if changes else config


def _changed(fields: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    made = {name: value for name, value in fields.items() if name not in ("transformers_version", "architectures")}
    for name, value in changes.items():
        if name not in fields:
            raise ValueError(f"{where}: config.json has no {name!r}; it has {', '.join(sorted(fields))}")
        inner = fields[name]
        if isinstance(inner, dict) and isinstance(value, Mapping):
            made[name] = _changed(inner, value, f"{where}.{name}")
        else:
            made[name] = value
    return made


def start(
    model: nn.Module,
    folders: Sequence[str],
    may_begin: Callable[[str], bool] = lambda name: False,
    fitted: Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor | None] = lambda name, value, place: None,
    say: bool = True,
) -> None:
    """Put the weights of folders into a model with random ones, later ones over earlier ones.

    Args:
        model: fresh.
        folders: of models or of finished runs; the first one may hold no weights, then what others lack begins at
            random.
        may_begin: otherwise, whether a parameter may.
        fitted: a tensor of another shape as its place is shaped (name, tensor, the place); None: it cannot be.
        say: what is taken, and what begins at random.

    Raises:
        ConfigError: a folder gives nothing, or another shape; or something begins at random that must not.
    """
    places = model.state_dict(keep_vars=True)
    taken: set[str] = set()
    bare = False
    for number, folder in enumerate(folders):
        tensors = weights_of(folder)
        if not tensors and number == 0:
            bare = True
            continue
        used = 0
        for name, value in tensors.items():
            place = places.get(name)
            if place is None:
                continue
            if place.shape != value.shape:
                other = fitted(name, value, place)
                if other is None:
                    raise ConfigError(
                        f"{folder} has {name} of {_size(value)}, the model of {_size(place)}; change the recipe's "
                        "'shape', or give another folder"
                    )
                value = other
            with torch.no_grad():
                place.copy_(value)
            taken.add(name)
            used += 1
        if not used:
            raise ConfigError(f"{folder} holds {len(tensors)} tensors and none of this model; give another folder")
        if say and processes.is_first():
            left = f"; {len(tensors) - used} have no place in it" if used < len(tensors) else ""
            print(f"{folder}: {used} tensors{left}", flush=True)
    # Tensors that are another's are there with it.
    held = {places[name].data_ptr() for name in taken}
    learned = {name for name, _ in model.named_parameters()}
    new = [name for name in places if name in learned and places[name].data_ptr() not in held]
    odd = [name for name in new if not may_begin(name) and not bare]
    if odd:
        raise ConfigError(
            f"{len(odd)} tensors of the model are in none of {', '.join(folders)}, e.g. {odd[0]}; add the folder that "
            "has them to 'start_from'"
        )
    if new and say and processes.is_first():
        numbers = sum(places[name].numel() for name in new)
        parts = ", ".join(sorted({name.split(".")[0] for name in new}))
        print(f"{numbers:,} parameters begin at random: {parts}", flush=True)


def weights_of(folder: str) -> Tensors:
    """The tensors of a model's folder, of the model of a finished run, or of the parts that one trained; {}: none.

    Raises:
        ConfigError: there is no such folder, or a file is damaged.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ConfigError(f"there is no folder {folder}; give a model's, or run the recipe that makes it first")
    if (place / PARTS_FILE).is_file() and (place / "model").is_dir():
        place = place / "model"
    found: Tensors = {}
    for file in sorted(place.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                found |= {name.removeprefix("model.") if file.name == PARTS_FILE else name: opened.get_tensor(name)
                          for name in opened.keys()}  # noqa: SIM118 (it is no mapping)  # fmt: skip
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"cannot read {file}: {' '.join(str(error).split())}; make it again") from None
    return found


def _size(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def save_trained(fresh: Callable[[], tuple[Any, Any]], run: str, folder: Path) -> None:
    """Write a folder that `from_pretrained` takes: the model as the run began, with what it trained put in.

    Args:
        fresh: makes model and processor as the run did.
        run: folder of the finished run.
        folder: to write; it appears whole.
    """
    model, processor = fresh()
    load_parts(Holder(model), run)
    staging = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
    finally:
        if bar:
            logging.enable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)
