"""Models by name or folder: the embedded `tiny`, or anything that `save_pretrained` wrote."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, MissingDependencyError, ModelNotFoundError

if TYPE_CHECKING:
    import torch

    from .video_llama import VideoLlamaForConditionalGeneration, VideoLlamaProcessor

# Smaller models are there before a progress bar could be read.
_SHOW_PROGRESS_BYTES = 2**30

EMBEDDED = {"tiny": Path(__file__).resolve().parents[1] / "assets" / "tiny"}


def find(name_or_folder: str | Path = "tiny") -> Path:
    """The folder of a model.

    Args:
        name_or_folder: a name in `EMBEDDED`, or a folder.

    Raises:
        ModelNotFoundError: if there is no such model.
    """
    asked = str(name_or_folder)
    folder = EMBEDDED.get(asked, Path(asked).expanduser())
    if not folder.is_dir():
        hint = "run `make tiny` to build it" if asked in EMBEDDED else f"name one of {', '.join(EMBEDDED)}, or a folder"
        raise ModelNotFoundError(f"no model {asked!r}: there is no folder {folder}; {hint}")
    config = folder / "config.json"
    if not config.is_file():
        raise ModelNotFoundError(f"no model in {folder}: it has no config.json; give one that save_pretrained wrote")
    try:
        model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError, OSError) as error:
        raise ModelNotFoundError(
            f"no model in {folder}: config.json cannot be read ({error}); save it again"
        ) from error
    if model_type != "video_llama":
        raise ModelNotFoundError(
            f"no model in {folder}: config.json is of a {model_type!r} model, this loads 'video_llama' models; give "
            f"another folder, or convert it first"
        )
    return folder


def load(
    name_or_folder: str | Path = "tiny",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    bits: int | None = None,
) -> tuple[VideoLlamaForConditionalGeneration, VideoLlamaProcessor]:
    """A model, ready to answer, and its processor.

    Args:
        name_or_folder: ``"tiny"``, or a folder.
        device: e.g. ``"cpu"``, ``"cuda"``, ``"cuda:1"``; None: the accelerator if there is one, else the CPU.
        dtype: e.g. ``"bfloat16"``; None: float32 on the CPU, otherwise as saved.
        bits: 4 or 8: quantise the language model (and only it); None: do not.

    Returns:
        the model in eval mode and the processor.

    Raises:
        ModelNotFoundError: if there is no such model, or its files are incomplete.
        MissingDependencyError: if ``bits`` is given and bitsandbytes is not installed.
        ConfigError: for a device, dtype or number of bits that there is not.
    """
    folder = find(name_or_folder)
    if bits not in (None, 4, 8):
        raise ConfigError(f"bits is 4 or 8, found {bits!r}; leave it out for full precision")
    if bits is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(f"{bits}-bit inference needs bitsandbytes; pip install bitsandbytes accelerate")

    from safetensors import SafetensorError
    from transformers.utils import logging

    place = _device(device)
    number = _dtype(dtype, place)

    from .video_llama import VideoLlamaForConditionalGeneration, VideoLlamaProcessor

    options: dict[str, Any] = {"dtype": number, "local_files_only": True}
    if bits is not None:
        options |= {"quantization_config": _quantisation(bits, number), "device_map": {"": place}}
    weights_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    quiet = weights_bytes < _SHOW_PROGRESS_BYTES and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        options["output_loading_info"] = True
        loaded: Any = VideoLlamaForConditionalGeneration.from_pretrained(folder, **options)
        processor = VideoLlamaProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelNotFoundError(
            f"the model in {folder} is incomplete: {reason}; save it anew, with its processor"
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()
    model, report = loaded
    # The library would start missing weights at random and go on.
    for what in ("missing", "unexpected"):
        keys = sorted(report[f"{what}_keys"])
        if keys:
            raise ModelNotFoundError(
                f"the model in {folder} is incomplete: {len(keys)} {what} weights, e.g. {keys[0]}; save it again"
            )
    if bits is None and place.type != "cpu":
        model = model.to(place)
    return model.eval(), processor


def _device(asked: str | torch.device | None) -> torch.device:
    import torch

    if asked is None or str(asked) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"device {str(asked)!r} cannot be used here ({reason}); try cpu or leave it out") from error
    return device


def _dtype(asked: str | torch.dtype | None, device: torch.device) -> torch.dtype | str:
    import torch

    if asked is None:
        return torch.float32 if device.type == "cpu" else "auto"
    number = getattr(torch, asked, None) if isinstance(asked, str) else asked
    if not isinstance(number, torch.dtype) or not number.is_floating_point:
        raise ConfigError(f"dtype {asked!r} is no floating point type; choose float32, bfloat16 or float16")
    return number


def _quantisation(bits: int, dtype: torch.dtype | str) -> Any:
    """Only the decoder's layers: encoders, Q-Formers, projections and the decoder's head keep their precision."""
    import torch
    from transformers import BitsAndBytesConfig

    full = ["vision_model", "qformer", "video_qformer", "video_projection", "lm_head"]
    full += ["audio_model", "audio_qformer", "audio_projection"]
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=full)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else torch.bfloat16,
        llm_int8_skip_modules=full,
    )
