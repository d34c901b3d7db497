"""Models by name or folder: the embedded `tiny`, or anything that `save_pretrained` wrote."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, MissingDependencyError, ModelNotFoundError

if TYPE_CHECKING:
    import torch

    from .memory import MemoryPlan
    from .video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor

# Smaller models are there before a plan or a progress bar could be read.
_LARGE_BYTES = 2**30
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

_NAMES = (
    "tiny", "tiny_dual_encoder", "tiny_narrator", "tiny_rephraser", "tiny_lf_vila", "tiny_imagebind",
)  # fmt: skip
EMBEDDED = {name: Path(__file__).resolve().parents[1] / "assets" / name for name in _NAMES}
"""The models that come with the package. `load` is for the first, which answers in a chat; the others are LaViLa's,
LF-VILA's and ImageBind's, see `videollm.models.families`."""


def folder_of(name_or_folder: str | Path) -> Path:
    """The folder that a name in `EMBEDDED` stands for, or that is given; it may not be there."""
    return EMBEDDED.get(str(name_or_folder), Path(name_or_folder).expanduser())


def find(name_or_folder: str | Path = "tiny") -> Path:
    """The folder of a model.

    Args:
        name_or_folder: a name in `EMBEDDED`, or a folder.

    Raises:
        ModelNotFoundError: if there is no such model.
    """
    asked = str(name_or_folder)
    folder = folder_of(asked)
    if not folder.is_dir():
        hint = "run `make tiny` to build it" if asked in EMBEDDED else "name tiny, or a folder"
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


def read_config(folder: Path) -> VideoLlamaConfig:
    """The config of a model's folder.

    Raises:
        ModelNotFoundError: if it cannot be used.
    """
    from huggingface_hub.errors import StrictDataclassError

    from .video_llama import VideoLlamaConfig

    try:
        return VideoLlamaConfig.from_pretrained(folder, local_files_only=True)
    except (StrictDataclassError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelNotFoundError(
            f"no model in {folder}: config.json cannot be used ({_flat(error)}); save the model again"
        ) from error


def saved_bits(config: VideoLlamaConfig) -> int | None:
    """4 or 8 for a model that was quantised when it was saved, else None.

    Raises:
        ModelNotFoundError: if it was quantised in another way than `load` does.
    """
    saved = getattr(config, "quantization_config", None)
    if saved is None:
        return None
    options = saved if isinstance(saved, dict) else saved.to_dict()
    bits = 4 if options.get("load_in_4bit") else 8 if options.get("load_in_8bit") else None
    if options.get("quant_method") != "bitsandbytes" or bits is None:
        raise ModelNotFoundError(
            f"the model was saved quantised by {options.get('quant_method')!r}; this loads bitsandbytes in 4 or 8 "
            f"bits: give its full-precision folder"
        )
    return bits


def load(
    name_or_folder: str | Path = "tiny",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    bits: int | None = None,
    device_map: Mapping[str, Any] | str | None = None,
    announce: Callable[[MemoryPlan], None] | None = None,
) -> tuple[VideoLlamaForConditionalGeneration, VideoLlamaProcessor]:
    """A model, ready to answer, and its processor.

    Args:
        name_or_folder: ``"tiny"``, or a folder; it may hold a model that was saved quantised.
        device: e.g. ``"cpu"``, ``"cuda"``, ``"cuda:1"``; None: the accelerator if there is one, else the CPU.
        dtype: e.g. ``"bfloat16"``, of all that is not quantised; None: bfloat16 with ``bits``, else float32 on the CPU
            and as saved elsewhere.
        bits: 4 (NF4, double quantisation) or 8: quantise the decoder's linear layers, and nothing else; None: as saved.
        device_map: instead of ``device``: ``{"encoders": "cuda:0", "decoder": "cuda:1"}``, or a map of the library's
            kind (``"auto"``, or from names of modules to devices), which is not checked against a memory plan.
        announce: gets the memory plan of a large model (a GiB of files) before anything of it is loaded.

    Returns:
        the model in eval mode and the processor.

    Raises:
        ModelNotFoundError: if there is no such model, or its files are incomplete.
        MemoryPlanError: if a large model does not fit the device.
        MissingDependencyError: if ``bits`` or ``device_map`` needs a package that is not installed.
        ConfigError: for a device, dtype or number of bits that there is not.
    """
    folder = find(name_or_folder)
    if bits not in (None, 4, 8):
        raise ConfigError(f"bits is 4 or 8, found {bits!r}; leave it out for full precision")
    config = read_config(folder)
    saved = saved_bits(config)
    if saved is not None and bits not in (None, saved):
        raise ConfigError(
            f"the model in {folder} was saved in {saved} bits and cannot be loaded in {bits}; leave bits out, or give "
            f"its full-precision folder"
        )
    bits = bits or saved
    if bits is not None:
        _require("bitsandbytes", f"{bits}-bit inference")
    if bits is not None or device_map is not None:
        _require("accelerate", f"{bits}-bit inference" if bits is not None else "a model on two devices")

    from safetensors import SafetensorError
    from transformers.utils import logging

    devices = _devices(device, device_map)
    place = devices["decoder"] if isinstance(devices, dict) else devices
    number = _dtype(dtype, place, bits)

    from .video_llama import VideoLlamaForConditionalGeneration

    options: dict[str, Any] = {"dtype": number, "local_files_only": True, "output_loading_info": True}
    if isinstance(devices, dict):
        options["device_map"] = placement(config, devices)
    elif device_map is not None:
        options["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    elif bits is not None:
        options["device_map"] = {"": str(place)}
    if bits is not None and saved is None:
        options["quantization_config"] = _quantisation(bits, number, options["device_map"])
    weights_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    large = weights_bytes >= _LARGE_BYTES
    if large and (device_map is None or isinstance(devices, dict)):
        _plan(str(name_or_folder), config, number, bits, devices, saved, announce)
    quiet = not large and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        processor = read_processor(folder)
        with warnings.catch_warnings():
            # The query tokens are parameters, not modules: they are placed, and still warned about.
            warnings.filterwarnings("ignore", message="The following device_map keys do not match")
            loaded: Any = VideoLlamaForConditionalGeneration.from_pretrained(folder, **options)
    except (OSError, SafetensorError) as error:
        raise ModelNotFoundError(
            f"the model in {folder} is incomplete: {_flat(error)}; save it anew, with its processor"
        ) from error
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise ModelNotFoundError(
            f"the weights in {folder} are not those of its config.json; `videollm doctor {folder}` names them"
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
    if bits == 4:
        _keep_uneven_layers_unpacked(model)
    if "device_map" not in options and place.type != "cpu":
        model = model.to(place)
    return model.eval(), processor


def _keep_uneven_layers_unpacked(model: Any) -> None:
    """On a CPU with AVX512-BF16 bitsandbytes packs 4-bit layers anew when they are first used: 32 rows to a piece, and
    whole blocks of 64 in a row. Layers of another size would fail there; they are computed as on other CPUs.
    """
    for module in model.modules():
        uneven = getattr(module, "out_features", 0) % 32 or getattr(module, "in_features", 0) % 64
        if uneven and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def placement(config: VideoLlamaConfig, devices: Mapping[str, Any]) -> dict[str, str]:
    """Where each part of a model goes: a map of the library's kind.

    Args:
        config: the model's.
        devices: of ``"encoders"`` and of ``"decoder"``.
    """
    from .memory import DECODER, ENCODERS

    present = (name for name in ENCODERS if config.has_audio or not name.startswith("audio_"))
    return {**{name: str(devices["encoders"]) for name in present}, DECODER: str(devices["decoder"])}


def _plan(
    name: str,
    config: VideoLlamaConfig,
    number: torch.dtype | str,
    bits: int | None,
    devices: Any,
    saved: int | None,
    announce: Callable[[MemoryPlan], None] | None,
) -> None:
    """Announces what a model will take; raises if that is too much."""
    import torch

    from . import memory

    if bits is not None:
        precision = f"{bits}-bit"
    else:
        kept = config.dtype if isinstance(number, str) else number
        precision = {torch.float32: "fp32", torch.float16: "fp16"}.get(kept, "bf16")  # pyright: ignore
    weights = memory.weights_of(memory.empty_model(config))
    wanted = memory.plan(config, precision, model=name, weights=weights)
    if announce is not None:
        announce(wanted)
    # What was saved quantised cannot be had otherwise.
    offered = memory.OFFERED if saved is None else ()
    memory.require_fit(wanted, config, devices, weights=weights, offered=offered)


def read_processor(folder: Path) -> VideoLlamaProcessor:
    """The processor of a model's folder, its tokenizer among it.

    Raises:
        ModelNotFoundError: if a file of it is missing or cannot be used.
    """
    from .video_llama import VideoLlamaProcessor

    def incomplete(what: str) -> ModelNotFoundError:
        return ModelNotFoundError(f"the model in {folder} is incomplete: {what}; save it anew, with its processor")

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise incomplete(f"it has no tokenizer ({' or '.join(_TOKENIZER_FILES)})")
    if not (folder / "processor_config.json").is_file():
        raise incomplete("it has no processor_config.json")
    try:
        return VideoLlamaProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise incomplete(_flat(error)) from error


def _require(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(f"{what} needs {package}; pip install 'videollm[bits]'")


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())


def _devices(
    device: str | torch.device | None, device_map: Mapping[str, Any] | str | None
) -> torch.device | dict[Any, torch.device]:
    """One device, or those of the encoders and of the decoder."""
    if not isinstance(device_map, Mapping) or not {"encoders", "decoder"} & set(device_map):
        return choose_device(device)
    if set(device_map) != {"encoders", "decoder"}:
        raise ConfigError(f"device_map names {sorted(device_map)}; name a device for encoders and one for decoder")
    return {side: choose_device(device_map[side]) for side in ("encoders", "decoder")}


def choose_device(asked: str | torch.device | None = None) -> torch.device:
    """A device by name, or the best there is.

    Raises:
        ConfigError: if it cannot be used.
    """
    import torch

    if asked is None or str(asked) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(asked)
        if device.type == "meta":
            raise NotImplementedError("it holds shapes without numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"device {str(asked)!r} cannot be used here ({reason}); try cpu or leave it out") from error
    return device


def _dtype(asked: str | torch.dtype | None, device: torch.device, bits: int | None) -> torch.dtype | str:
    import torch

    if asked is None and bits is not None:
        return torch.bfloat16
    if asked is None:
        return torch.float32 if device.type == "cpu" else "auto"
    number = getattr(torch, asked, None) if isinstance(asked, str) else asked
    if not isinstance(number, torch.dtype) or not number.is_floating_point:
        raise ConfigError(f"dtype {asked!r} is no floating point type; choose float32, bfloat16 or float16")
    return number


def _quantisation(bits: int, dtype: torch.dtype | str, device_map: Any) -> Any:
    """Only the decoder's layers: encoders, Q-Formers, projections and the decoder's head keep their precision."""
    import torch
    from transformers import BitsAndBytesConfig

    from .memory import ENCODERS

    full = [*ENCODERS, "lm_head"]
    # The library asks to be told that parts on the CPU, here never the decoder's, stay as they are.
    places = set(device_map.values()) if isinstance(device_map, dict) else set()
    mixed = "cpu" in places and places != {"cpu"}
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=full, llm_int8_enable_fp32_cpu_offload=mixed)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else torch.bfloat16,
        llm_int8_skip_modules=full,
        llm_int8_enable_fp32_cpu_offload=mixed,
    )
