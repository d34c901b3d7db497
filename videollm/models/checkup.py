"""Looking over a model's folder without loading it: every key and shape against the config, and whose weights they are.

It knows chat models, and the models of LaViLa and LF-VILA.

What a file holds is read from its header; what the config asks for, from the model on the meta device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelNotFoundError
from . import families, hub, memory
from .video_llama.configuration_video_llama import VideoLlamaConfig

Shape = tuple[int, ...]
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_NAMED = 3


@dataclass(frozen=True)
class Licence:
    """Whose weights a part has, as far as its shape tells.

    Attributes:
        part: of the model.
        text: the licence, in one line.
        commercial: False: not for commercial use; None: read it.
    """

    part: str
    text: str
    commercial: bool | None


@dataclass(frozen=True)
class Checkup:
    """What was found in a folder.

    Attributes:
        folder: it.
        config: its config; a `VideoLlamaConfig`, or that of ``family``.
        family: LaViLa's or LF-VILA's; None: a chat model.
        bits: 4 or 8 where it was saved quantised.
        tensors, parameters: of the weights on disk, and of the model they make.
        weights_bytes: of the files.
        problems: one line each; empty: the folder is whole.
    """

    folder: Path
    config: Any
    family: families.FamilyFolder | None
    bits: int | None
    tensors: int
    parameters: int
    weights_bytes: int
    problems: tuple[str, ...]


def check_folder(name_or_folder: str | Path) -> Checkup:
    """Check a model's folder: its files, every key, every shape and kind of number, its processor.

    Raises:
        ModelNotFoundError: if it is no folder of a model, or its config cannot be used; other faults are in the result.
    """
    if families.model_type_of(name_or_folder) in families.FAMILIES:
        family = families.look_up(name_or_folder)
        with torch.device("meta"):
            model = family.model_class(family.config)
        return _checked(family.folder, family.config, family, None, model)
    folder = hub.find(name_or_folder)
    config = hub.read_config(folder)
    return _checked(folder, config, None, hub.saved_bits(config), memory.empty_model(config))


def _checked(folder: Path, config: Any, family: families.FamilyFolder | None, bits: int | None, model: Any) -> Checkup:
    weights = memory.weights_of(model)
    problems: list[str] = []
    found, size = _headers(folder, problems)
    if found:
        tied = {name for names in _tied(model) for name in names[1:]}
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        quantised = {weight.name for weight in weights if weight.quantised}
        problems += compare(wanted, found, tied=tied, quantised=quantised, bits=bits)
    try:
        hub.read_processor(folder) if family is None else families.read_processor(family)
    except ModelNotFoundError as error:
        problems.append(str(error))
    parameters = sum(math.prod(weight.shape) for weight in weights)
    return Checkup(folder, config, family, bits, len(found), parameters, size, tuple(problems))


def compare(
    wanted: Mapping[str, Shape],
    found: Mapping[str, tuple[Shape, str]],
    *,
    tied: Iterable[str] = (),
    quantised: Iterable[str] = (),
    bits: int | None = None,
) -> list[str]:
    """What is wrong with the tensors of a folder, one line a kind of fault.

    Args:
        wanted: shapes by name, of the model.
        found: shape and safetensors' name of the kind of number, of the files.
        tied: names that may be missing, since they are another's.
        quantised: weights that are packed where ``bits`` is given.
        bits: 4, 8 or None.
    """
    absent, packed = set(tied), set(quantised) if bits is not None else set()
    missing = sorted(name for name in wanted if name not in found and name not in absent)
    wrong: list[str] = []
    used: set[str] = set()
    for name, shape in wanted.items():
        if name not in found:
            continue
        used.add(name)
        held, kind = found[name]
        expected, kinds = shape, _FLOATS
        if name in packed and bits is not None:
            beside, expected, kinds = _packed(name, shape, bits, nested=f"{name}.nested_absmax" in found)
            for other, other_shape in beside.items():
                if other not in found:
                    missing.append(other)
                elif other_shape is not None and found[other][0] != other_shape:
                    wrong.append(f"{other} is {_size(found[other][0])}, must be {_size(other_shape)}")
            used |= {other for other in found if other.startswith((f"{name}.", f"{name}_format"))} | set(beside)
        if held != expected:
            wrong.append(f"{name} is {_size(held)}, the config asks for {_size(expected)}")
        elif kind not in kinds:
            wrong.append(f"{name} holds {kind} numbers, must be {' or '.join(sorted(kinds))}")
    unknown = sorted(set(found) - used)
    return [
        f"{len(names)} {what}: {'; '.join(names[:_NAMED])}{'; ...' if len(names) > _NAMED else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of the wrong shape or kind", wrong))
        if names
    ]


def _packed(name: str, shape: Shape, bits: int, nested: bool) -> tuple[dict[str, Shape | None], Shape, frozenset[str]]:
    """How bitsandbytes saves a weight: the tensors beside it, its own shape, its kinds of numbers.

    A model that was used on a CPU before it was saved may have lost the second quantisation, that of the scales.
    """
    layer = name.removesuffix(".weight")
    if bits == 8:
        return {f"{layer}.SCB": (shape[0],)}, shape, frozenset({"I8"})
    count = math.prod(shape)
    scales = math.ceil(count / memory.BLOCK)
    beside: dict[str, Shape | None] = {
        f"{name}.absmax": (scales,),
        f"{name}.quant_map": (16,),
        f"{name}.quant_state.bitsandbytes__nf4": None,
    }
    if nested:
        beside[f"{name}.nested_absmax"] = (math.ceil(scales / memory.SCALES_BLOCK),)
        beside[f"{name}.nested_quant_map"] = (256,)
    return beside, (math.ceil(count / 2), 1), frozenset({"U8"})


def _headers(folder: Path, problems: list[str]) -> tuple[dict[str, tuple[Shape, str]], int]:
    """Shapes and kinds of all tensors in a folder, and the bytes of its files; what cannot be read is a problem."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    places: Mapping[str, str] = {}
    if index.is_file():
        try:
            places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(places.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{index.name} cannot be read ({error})")
            return {}, 0
    found: dict[str, tuple[Shape, str]] = {}
    size = 0
    for name in names:
        file = folder / name
        if not file.is_file():
            problems.append(f"there is no {name}")
            continue
        size += file.stat().st_size
        try:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (not a dict)
                    part = tensors.get_slice(key)
                    found[key] = (tuple(part.get_shape()), str(part.get_dtype()))
                    if places and places.get(key) != name:
                        problems.append(f"{index.name} has no {key} in {name}")
        except (SafetensorError, OSError) as error:
            problems.append(f"{name} cannot be read ({' '.join(str(error).split())}): copy it again")
    return found, size


def _tied(model: object) -> list[list[str]]:
    """Groups of names that are one parameter."""
    groups: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):  # pyright: ignore[reportAttributeAccessIssue]
        groups.setdefault(id(value), []).append(name)
    return list(groups.values())


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def licences(config: VideoLlamaConfig) -> list[Licence]:
    """Of the parts that have the shape of a published file; a model of other shapes was trained by somebody else.

    Shapes cannot tell where numbers come from: what the folder's own model card says counts first.
    """
    found: list[Licence] = []
    vision, frame, audio, text = config.vision_config, config.qformer_config, config.audio_config, config.text_config
    if (vision.hidden_size, vision.num_hidden_layers) == (1408, 39):
        found.append(Licence("EVA ViT-g", "MIT", True))
    if (frame.hidden_size, frame.num_hidden_layers, frame.encoder_hidden_size) == (768, 12, 1408):
        found.append(Licence("BLIP-2 Q-Former", "BSD-3-Clause", True))
    if audio is not None and (audio.hidden_size, audio.num_hidden_layers, audio.projection_dim) == (768, 12, 1024):
        text_of = "CC BY-NC-SA 4.0 (CC BY-NC 4.0 by its README): NOT for commercial use"
        found.append(Licence("ImageBind", text_of, False))
    if (text.hidden_size, text.num_hidden_layers) in ((4096, 32), (5120, 40)):
        found.append(
            Licence(
                "decoder",
                "that of the LLaMA it came from: LLaMA 1 and Vicuna v0 research only, Llama 2 its community licence",
                None,
            )
        )
        found.append(
            Licence("Video-LLaMA's branches", "research preview, NOT for commercial use (Video-LLaMA's terms)", False)
        )
    return found
