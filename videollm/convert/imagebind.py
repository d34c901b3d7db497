"""Published ImageBind weights to `ImageBindModel`: sound, sight and words in one space.

Source: Girdhar et al., "ImageBind" (2023), and its released checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from ..errors import ConversionError
from ..models.imagebind import ImageBindConfig, ImageBindModel, load_text_tokenizer
from ..models.imagebind.processing_imagebind import ImageBindProcessor
from ..models.video_llama import VideoLlamaFeatureExtractor
from .audit import Piece, Plan, Shape, audit
from .checkpoint import Checkpoint, Source, inspect, unwrap, without
from .folder import build
from .keymap import imagebind

TRUNKS = ("audio", "vision", "text")

_LARGEST_LOGIT_SCALE = 100.0
_MERGES = Path(__file__).parents[1] / "assets" / "tokenizers" / "clip_merges.txt.gz"


def plan(label: str, shapes: Mapping[str, Shape], config: ImageBindConfig) -> Plan:
    """The audited plan of a conversion of ``imagebind_huge.pth``, of which the config says which trunks are wanted.

    Raises:
        ConversionError: if the file does not fill them.
    """
    trunks = [name for name in TRUNKS if getattr(config, f"{name}_config") is not None]
    with torch.device("meta"):
        model = ImageBindModel(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return audit([Piece(label, imagebind(*trunks), shapes)], wanted)


def imagebind_state_dict(published: Mapping[str, Any], config: ImageBindConfig) -> dict[str, torch.Tensor]:
    """ImageBind's tensors to the state dict of an `ImageBindModel`; the config says which trunks are wanted.

    Args:
        published: what ``imagebind_huge.pth`` holds; or a state dict of the whole published Video-LLaMA, of which only
            the keys under ``audio_encoder.`` are looked at.
        config: of the model.

    Raises:
        ConversionError: as `state_dict`.
    """
    prefix = "audio_encoder."
    tensors = unwrap(published)
    if any(key.startswith(prefix) for key in tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    return {fill.target: fill.make(tensors.__getitem__) for fill in plan("imagebind", shapes, config).fills}


def audio_logit_scale(checkpoint: Checkpoint, otherwise: float) -> float:
    """The fixed length of the embeddings of sounds, which the published file keeps as a logarithm."""
    key = "modality_postprocessors.audio.1.log_logit_scale"
    if key not in checkpoint.shapes:
        return otherwise
    with checkpoint.open() as read:
        return round(float(read(key).double().exp().clamp(max=_LARGEST_LOGIT_SCALE)), 4)


def processor_of(config: ImageBindConfig) -> ImageBindProcessor | None:
    """What its ear and its text trunk are fed with, as published; None where it lacks one, or has other words."""
    ear, text = config.audio_config, config.text_config
    if ear is None or text is None:
        return None
    tokenizer = load_text_tokenizer(_MERGES)
    if len(tokenizer) > text.vocab_size:
        return None
    sound = VideoLlamaFeatureExtractor(num_mel_bins=ear.num_mel_bins, target_length=ear.target_length)
    return ImageBindProcessor(sound, tokenizer, min(77, text.max_position_embeddings))


def convert(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    config: str | Path | None = None,
    drop: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """``imagebind_huge.pth`` to a folder that ``ImageBindModel.from_pretrained`` takes, with all three trunks.

    Beside the weights stands an `ImageBindProcessor`, with which ``videollm index --ear`` uses the folder.

    Args:
        paths: the file.
        out: the folder to make; it must not be there yet.
        config: a JSON file with fields of `ImageBindConfig`, where the shape is not the published one; a trunk that is
            null in it is left out.
        drop: patterns (``*`` is anything) of published keys to leave out.
        dtype: of the weights; None: as in their file.
        say: takes lines for the user.

    Raises:
        ConversionError: in one line, what is missing, too much or damaged; nothing is left behind.
    """
    if len(paths) != 1:
        raise ConversionError(f"ImageBind is one file, imagebind_huge.pth; {len(paths)} were given")
    path = Path(paths[0]).expanduser()
    source = Source(path.name, "imagebind", inspect(path))
    if not any(key.startswith("modality_trunks.") for key in source.checkpoint.shapes):
        raise ConversionError(f"{path} is not ImageBind; give imagebind_huge.pth")
    fields: dict[str, Any] = {f"{trunk}_config": {} for trunk in TRUNKS}
    try:
        if config is not None:
            fields |= json.loads(Path(config).read_text(encoding="utf-8"))
        if fields["audio_config"] is not None:
            ear = dict(fields["audio_config"])
            ear["logit_scale"] = audio_logit_scale(source.checkpoint, ear.get("logit_scale", 20.0))
            fields["audio_config"] = ear
        shape = ImageBindConfig(**fields)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"the shape in {config} makes no model ({reason}); give a JSON object") from error
    shapes, left_out = without([source], drop)
    made = plan(source.label, shapes[source.label], shape)

    processor = processor_of(shape)
    if processor is None:
        say("no tokenizer is known for this shape: the folder gets no processor, and is no --ear")

    def save(folder: Path) -> None:
        if processor is not None:
            processor.save_pretrained(folder)
        shape.architectures = [ImageBindModel.__name__]
        shape.dtype = dtype or torch.float32
        shape.save_pretrained(folder)

    facts = {"family": "imagebind"}
    return build(Path(out), [source], made, save, facts=facts, left_out=left_out, dtype=dtype, say=say)
