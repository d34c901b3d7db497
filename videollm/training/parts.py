"""The trained parts of a model: the small file that a run keeps of them, and the ways back into a model.

Low-rank updates stay factors in the file, with their scale; they are added to the weights that they belong to when the
file is put into a model, or into a model's folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from videollm.errors import ConfigError

PARTS_FILE = "trained.safetensors"
Update = tuple[torch.Tensor, torch.Tensor]
"""Factors of what is added to a weight: ``(rank, inputs)`` and ``(outputs, rank)``."""
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
_SCALE = "low_rank_scale"
_GROWING_ROWS = ("embed_tokens.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight")


class Holder(nn.Module):
    """Gives a bare model the name that it has inside an objective."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def trained_state(objective: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a stage trains, whole and on the CPU: parts of the model and the objective's own heads.

    Under DeepSpeed in float32, put together from all processes, each of which has to call this.
    """
    return {
        name: _whole(parameter).detach().to("cpu", copy=True).contiguous()
        for name, parameter in objective.named_parameters()
        if parameter.requires_grad
    }


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    if not (hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")):
        return parameter
    from deepspeed.utils import safe_get_full_fp32_param

    whole = safe_get_full_fp32_param(parameter)
    assert whole is not None
    return whole


def save_parts(state: Mapping[str, torch.Tensor], folder: str | Path, low_rank_scale: float = 0.0) -> None:
    """Write the file of a run, whole or not at all."""
    target = Path(folder) / PARTS_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_suffix(".part")
    save_file(dict(state), staging, {"format": "pt", _SCALE: repr(low_rank_scale)})
    os.replace(staging, target)


def read_parts(folder: str | Path) -> tuple[dict[str, torch.Tensor], float]:
    """(the tensors of a run's file, the scale of its low-rank updates).

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = Path(folder) / PARTS_FILE
    try:
        with safe_open(path, "pt") as file:
            scale = float((file.metadata() or {}).get(_SCALE, 0))
            return {name: file.get_tensor(name) for name in file.keys()}, scale  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} holds no {PARTS_FILE}; run the recipe that writes it first (make tiny runs all in order)"
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}; run its recipe again") from None


def load_parts(objective: nn.Module, folder: str | Path, heads: bool = False) -> list[str]:
    """Put the parts that a finished run trained into a model; its heads too, if asked.

    Returns:
        the names that were loaded.

    Raises:
        ConfigError: the folder holds no trained parts, or one that the model does not have.
    """
    tensors, scale = read_parts(folder)
    parameters = dict(objective.named_parameters())
    loaded = []
    for name, tensor in added_up({key: value for key, value in tensors.items() if heads or key.startswith("model.")}):
        parameter = parameters.get(name)
        is_update = isinstance(tensor, tuple)
        if parameter is not None:
            tensor = _grown(name, tensor, parameter)
        shape = (tensor[1].shape[0], tensor[0].shape[1]) if is_update else tuple(tensor.shape)
        if parameter is None or tuple(getattr(parameter, "ds_shape", parameter.shape)) != shape:
            if parameter is not None and hasattr(parameter, "quant_state"):
                raise ConfigError(
                    f"{folder} has low-rank updates, which cannot be added to a quantised decoder; start from the "
                    f"whole model of that run: model: {Path(folder) / 'model'}"
                )
            found = "none" if parameter is None else "x".join(map(str, parameter.shape))
            raise ConfigError(
                f"{folder} has {name} of {'x'.join(map(str, shape))}, the model has {found}; give runs of this model"
            )
        _put(parameter, tensor, scale)
        loaded.append(name)
    return loaded


def load_trained_state(objective: nn.Module, folder: str | Path) -> None:
    """Put what `trained_state` gave back where it was: the same objective goes on.

    Raises:
        ConfigError: the checkpoint is of another model, or something else learned.
    """
    tensors, _ = read_parts(folder)
    learning = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    odd = sorted(tensors.keys() ^ learning.keys())
    odd += [name for name in tensors.keys() & learning.keys() if tensors[name].shape != learning[name].shape]
    if odd:
        raise ConfigError(
            f"{folder} and the recipe do not agree about {odd[0]} ({len(odd)} such); give the recipe that it is of, or "
            "begin anew with --restart"
        )
    for name, tensor in tensors.items():
        with torch.no_grad():
            learning[name].copy_(tensor)


def added_up(tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor | Update]]:
    """What each weight becomes: a tensor, or the two factors of what is added to it."""
    found: list[tuple[str, torch.Tensor | Update]] = []
    for name, tensor in tensors.items():
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            found.append((name, tensor))
        elif factor[2] == "A":
            found.append((f"{factor[1]}.weight", (tensor, tensors[f"{factor[1]}.lora_B.default.weight"])))
    return found


def _grown(name: str, tensor: torch.Tensor | Update, parameter: nn.Parameter) -> torch.Tensor | Update:
    """A tensor of a model that has got more since, such that it does what it did; all else as it is.

    Tokens that came later have the model's own vectors. Heads that came later look as the model's own do, and what they
    find counts nothing yet.
    """
    if isinstance(tensor, tuple):
        inputs, outputs = tensor
        rows, columns = max(parameter.shape[0] - len(outputs), 0), max(parameter.shape[1] - inputs.shape[1], 0)
        if not name.endswith((*_GROWING_ROWS, "o_proj.weight")):
            return tensor
        return functional.pad(inputs, (0, columns)), functional.pad(outputs, (0, 0, 0, rows))
    if tensor.ndim != 2 or tensor.shape == parameter.shape:
        return tensor
    rows, columns = tensor.shape
    if name.endswith(_GROWING_ROWS) and columns == parameter.shape[1]:
        return torch.cat([tensor, parameter.detach()[rows:].to(tensor)])
    if name.endswith("o_proj.weight") and rows == parameter.shape[0] and columns < parameter.shape[1]:
        return torch.cat([tensor, tensor.new_zeros(rows, parameter.shape[1] - columns)], 1)
    return tensor


def becomes(old: torch.Tensor, new: torch.Tensor | Update, scale: float) -> torch.Tensor:
    """A weight after training, in its number format."""
    if isinstance(new, tuple):
        new = old.float() + scale * (new[1].float() @ new[0].float()).to(old.device)
    return new.to(old)


@torch.no_grad()
def _put(parameter: nn.Parameter, new: torch.Tensor | Update, scale: float) -> None:
    if not hasattr(parameter, "ds_id"):
        parameter.copy_(becomes(parameter, new, scale))
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        parameter.copy_(becomes(parameter, new, scale))


def put_into_folder(base: Path, run: str | Path, target: Path) -> None:
    """A model's folder with the trained parts of a run in it: the same files, tensor by tensor, never a whole model.

    Args:
        base: the folder that the run started from.
        run: folder of the run.
        target: the folder to write; it appears whole.

    Raises:
        ConfigError: a part that the base does not have.
    """
    tensors, scale = read_parts(run)
    news = {name.removeprefix("model."): new for name, new in added_up(tensors) if name.startswith("model.")}
    staging = target.with_name(f".{target.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for path in sorted(base.iterdir()):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata, names = file.metadata(), list(file.keys())
                merged = {}
                for name in names:
                    old, new = file.get_tensor(name), news.pop(name, None)
                    merged[name] = old if new is None else becomes(old, new, scale).contiguous()
            save_file(merged, staging / path.name, metadata)
        elif path.is_file() and path.suffix != ".md":  # the card tells of the base
            shutil.copyfile(path, staging / path.name)
    if news:
        raise ConfigError(f"{base} has no {next(iter(news))} for the parts trained in {run}; give the run's own base")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(staging, target)
