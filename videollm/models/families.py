"""Models of LaViLa, LF-VILA and ImageBind from their folders; those that answer in a chat are loaded by `hub`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelNotFoundError
from . import hub

if TYPE_CHECKING:
    import torch

# Smaller models are there before a progress bar could be read.
_LARGE_BYTES = 2**30

FAMILIES = {
    "lavila_dual_encoder": "LaViLa's dual encoder",
    "lavila_narrator": "LaViLa's narrator",
    "lavila_classifier": "LaViLa's classifier",
    "lf_vila": "LF-VILA",
    "t5": "LaViLa's rephraser",
    "imagebind": "ImageBind",
}
"""What the folders that this loads say in their config's ``model_type``."""


@dataclass(frozen=True)
class FamilyFolder:
    """A folder and what its config says.

    Attributes:
        folder: it.
        model_type: a key of `FAMILIES`.
        model_class: what loads it.
        config: its config.
    """

    folder: Path
    model_type: str
    model_class: Any
    config: Any

    @property
    def what(self) -> str:
        """In words."""
        which = f" ({self.model_class.__name__})" if self.model_type == "lf_vila" else ""
        return FAMILIES[self.model_type] + which


def model_type_of(name_or_folder: str | Path) -> str | None:
    """What a folder's config is of; None where it cannot be read."""
    folder = hub.folder_of(name_or_folder)
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None


def look_up(name_or_folder: str | Path) -> FamilyFolder:
    """What a folder is of.

    Raises:
        ModelNotFoundError: no folder of one of `FAMILIES`, or its config cannot be used.
    """
    from huggingface_hub.errors import StrictDataclassError

    folder = hub.folder_of(name_or_folder)
    model_type = model_type_of(name_or_folder)
    if model_type not in FAMILIES:
        found = f"is of a {model_type!r} model" if model_type else "holds no config.json that can be read"
        raise ModelNotFoundError(
            f"no model of LaViLa, LF-VILA or ImageBind in {folder}: it {found}; give a folder that videollm convert "
            f"made"
        )
    classes = _classes()
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
        fitting = [one for name, one in classes[model_type].items() if name in named]
        if not fitting and len(classes[model_type]) > 1:
            raise ValueError(f"architectures is {named}, must name one of {', '.join(classes[model_type])}")
        chosen = (fitting or list(classes[model_type].values()))[0]
        config = chosen.config_class.from_pretrained(folder, local_files_only=True)
    except (StrictDataclassError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelNotFoundError(
            f"no model in {folder}: config.json cannot be used ({_flat(error)}); convert or save the model again"
        ) from error
    return FamilyFolder(folder, model_type, chosen, config)


def read_processor(found: FamilyFolder) -> Any:
    """What a folder's model takes its frames and words from: its processor, or the frames' alone for classifiers.

    Raises:
        ModelNotFoundError: a file of it is missing or cannot be used.
    """
    from transformers import AutoTokenizer

    from .imagebind.processing_imagebind import ImageBindProcessor
    from .lavila import LavilaImageProcessor, LavilaProcessor
    from .lf_vila import LfVilaForVideoClassification, LfVilaImageProcessor, LfVilaProcessor

    readers: dict[str, Any] = {
        "lavila_dual_encoder": LavilaProcessor,
        "lavila_narrator": LavilaProcessor,
        "lavila_classifier": LavilaImageProcessor,
        "lf_vila": LfVilaImageProcessor if found.model_class is LfVilaForVideoClassification else LfVilaProcessor,
        "t5": AutoTokenizer,
        "imagebind": ImageBindProcessor,
    }
    options = {"trust_remote_code": False} if found.model_type == "t5" else {}
    try:
        return readers[found.model_type].from_pretrained(found.folder, local_files_only=True, **options)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelNotFoundError(
            f"the model in {found.folder} is incomplete: its processor cannot be used ({_flat(error)}); convert it "
            f"again, with its tokenizer"
        ) from error


def load(
    name_or_folder: str | Path, *wanted: type, device: str | torch.device | None = None, dtype: Any = None
) -> tuple[Any, Any]:
    """A model and its processor.

    Args:
        name_or_folder: what ``videollm convert`` or ``save_pretrained`` wrote.
        wanted: classes, one of which it must be of; none: any.
        device: None: the accelerator if there is one, else the CPU.
        dtype: None: float32 on the CPU, as saved elsewhere.

    Returns:
        the model in eval mode and its processor.

    Raises:
        ModelNotFoundError: no such model, one of another class, or with weights missing or left over.
        ConfigError: a device that cannot be used.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    found = look_up(name_or_folder)
    if wanted and found.model_class not in wanted:
        names = " or ".join(one.__name__ for one in wanted)
        raise ModelNotFoundError(
            f"the model in {found.folder} is {found.what}; this needs {names}: give the folder of one"
        )
    place = hub.choose_device(device)
    processor = read_processor(found)
    number = dtype or (torch.float32 if place.type == "cpu" else "auto")
    large = sum(file.stat().st_size for file in found.folder.glob("*.safetensors")) >= _LARGE_BYTES
    quiet = not large and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        model, report = found.model_class.from_pretrained(
            found.folder, local_files_only=True, dtype=number, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelNotFoundError(
            f"the model in {found.folder} cannot be used ({_flat(error)}); `videollm doctor {found.folder}` says more"
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()
    # The library would start missing weights at random and go on.
    for what in ("missing", "unexpected"):
        keys = sorted(report[f"{what}_keys"])
        if keys:
            raise ModelNotFoundError(
                f"the model in {found.folder} is incomplete: {len(keys)} {what} weights, e.g. {keys[0]}; convert or "
                f"save it again"
            )
    return model.to(place).eval(), processor


def weights_of(name_or_folder: str | Path) -> list[list[Any]]:
    """What tells the weights of a model from others: names, sizes and times of its files."""
    files = sorted(hub.folder_of(name_or_folder).glob("*.safetensors"))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _classes() -> dict[str, dict[str, Any]]:
    """By model type, the classes that its folders may name."""
    from transformers import T5ForConditionalGeneration

    from . import lf_vila
    from .imagebind import ImageBindModel
    from .lavila import LavilaDualEncoder, LavilaForVideoClassification, LavilaNarrator

    of_lf_vila = [
        lf_vila.LfVilaForPreTraining,
        lf_vila.LfVilaForRetrieval,
        lf_vila.LfVilaForQuestionAnswering,
        lf_vila.LfVilaForMultipleChoice,
        lf_vila.LfVilaForVideoClassification,
    ]
    kinds = {
        "lavila_dual_encoder": [LavilaDualEncoder],
        "lavila_narrator": [LavilaNarrator],
        "lavila_classifier": [LavilaForVideoClassification],
        "lf_vila": of_lf_vila,
        "t5": [T5ForConditionalGeneration],
        "imagebind": [ImageBindModel],
    }
    return {name: {one.__name__: one for one in some} for name, some in kinds.items()}


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
