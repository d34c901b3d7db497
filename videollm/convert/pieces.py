"""The published files of Video-LLaMA: found in folders, recognised by what is in them, complete and of one size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..errors import ConversionError
from ..models.video_llama import VideoLlamaConfig
from .checkpoint import ON_DISK, SUFFIXES, Source, inspect
from .published import FILES

WHAT: dict[str, str] = {
    "eva_vit": "the EVA ViT (eva_vit_g.pth)",
    "blip2": "the BLIP-2 Q-Former (blip2_pretrained_flant5xxl.pth)",
    "imagebind": "ImageBind (imagebind_huge.pth)",
    "video_branch": "a checkpoint of the video branch (VL)",
    "audio_branch": "a checkpoint of the audio branch (AL)",
    "llama": "the folder of the decoder (LLaMA, Vicuna or Llama-2-chat)",
    "whole": "a state dict of the whole published model",
}
"""The kinds of published files."""

PIECES = ("eva_vit", "blip2", "video_branch", "llama", "imagebind", "audio_branch")


def recognise(keys: Iterable[str]) -> str | None:
    """The kind of a published file, by the names in it: a key of `WHAT`, or None."""
    keys = set(keys)
    if "query_tokens" in keys:
        return "whole" if any(key.startswith("llama_model.model.embed_tokens") for key in keys) else "blip2"
    if "video_query_tokens" in keys:
        return "video_branch"
    if "audio_query_tokens" in keys:
        return "audio_branch"
    if "cls_token" in keys and any(key.startswith("blocks.0.attn.") for key in keys):
        return "eva_vit"
    if any(key.startswith(("modality_preprocessors.", "modality_trunks.")) for key in keys):
        return "imagebind"
    if any(key.startswith(("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")) for key in keys):
        return "llama"
    return None


@dataclass
class Sources:
    """What was given.

    Attributes:
        files: of weights, those of the decoder too.
        decoder: its folder.
    """

    files: list[Source]
    decoder: Path

    def one(self, kind: str) -> Source | None:
        """The first file of a kind."""
        return next((source for source in self.files if source.kind == kind), None)


def gather(paths: Sequence[str | Path]) -> Sources:
    """All files of all folders, recognised by what is in them.

    Raises:
        ConversionError: for a file that is damaged or no piece, for no decoder, or several.
    """
    files: list[Source] = []
    decoders: list[Path] = []
    for given in paths:
        claimed, path = _claim(str(given))
        found: list[Path] = []
        if path.is_dir():
            inside = [path] if (path / "config.json").is_file() else sorted(path.iterdir())
            for child in inside:
                if child.is_dir() and (child / "config.json").is_file():
                    decoders.append(child)
                elif child.is_file() and child.suffix in SUFFIXES:
                    found.append(child)
            if not found and not any(decoder in (path, *path.iterdir()) for decoder in decoders):
                raise ConversionError(f"{path} holds neither weights nor the folder of a decoder; check the path")
        else:
            found.append(path)
        files += [_recognised(child, claimed) for child in found]
    if len(decoders) > 1:
        names = ", ".join(str(decoder) for decoder in decoders)
        raise ConversionError(f"{len(decoders)} decoders were given ({names}); give the one that the branch needs")
    if not decoders:
        loose = next((source for source in files if source.kind == "llama"), None)
        hint = f", not {loose.label} alone" if loose else ""
        raise ConversionError(f"{WHAT['llama']} is missing: give the folder that has its config.json{hint}")
    for path in _decoder_files(decoders[0]):
        checkpoint = inspect(path)
        files.append(Source(f"{decoders[0].name}/{path.name}", "llama", checkpoint))
    labels = [source.label for source in files]
    for source in files:
        if labels.count(source.label) > 1:
            source.label = str(source.checkpoint.path)
    return Sources(files, decoders[0])


def _claim(given: str) -> tuple[str | None, Path]:
    kind, equals, path = given.partition("=")
    return (kind, Path(path).expanduser()) if equals and kind in WHAT else (None, Path(given).expanduser())


def _recognised(path: Path, claimed: str | None) -> Source:
    checkpoint = inspect(path)
    if checkpoint.shapes and all(key.startswith("llama_proj.") for key in checkpoint.shapes):
        raise ConversionError(f"{path} is MiniGPT-4's projection, with which pretraining began; leave it out")
    kind = recognise(checkpoint.shapes)
    if kind is None:
        key = next(iter(checkpoint.shapes), "nothing")
        raise ConversionError(
            f"{path} (it holds {key}, ...) is no file of Video-LLaMA; give {'; '.join(WHAT[k] for k in PIECES)}"
        )
    if kind == "whole":
        raise ConversionError(f"{path} is {WHAT['whole']}; give the published pieces")
    known = FILES.get(path.name)
    thought = claimed or (known.kind if known is not None and known.kind in WHAT else kind)
    if kind != thought:
        by = "was given" if claimed else "is published"
        raise ConversionError(
            f"{path} {by} as {WHAT[thought]}, but holds {WHAT[kind]}; were two files swapped? Give each its own name "
            f"back, or download it again"
        )
    return Source(path.name, kind, checkpoint)


def _decoder_files(folder: Path) -> list[Path]:
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            try:
                names = sorted(set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
                raise ConversionError(f"{folder / index} cannot be read; download the decoder again") from error
            absent = [name for name in names if not (folder / name).is_file()]
            if absent:
                raise ConversionError(f"{folder} lacks {', '.join(absent)}; download the decoder again")
            return [folder / name for name in names]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    raise ConversionError(f"{folder} has a config.json but no weights; download the decoder again")


def check_complete(sources: Sources, audio: bool) -> None:
    """Every piece is there once, and they are of one size.

    Raises:
        ConversionError: if not.
    """
    for kind in PIECES:
        labels = [source.label for source in sources.files if source.kind == kind]
        if kind in ("imagebind", "audio_branch"):
            if not audio:
                if kind == "audio_branch" and labels:
                    raise ConversionError(f"{labels[0]} is an audio branch; leave it out, or leave out --no-audio")
                continue
            if not labels:
                raise ConversionError(
                    f"{WHAT[kind]} is missing; give it, too, or make a model that only sees with --no-audio"
                )
        elif not labels:
            raise ConversionError(f"{WHAT[kind]} is missing; give it, too (videollm convert video-llama --list)")
        if kind != "llama" and len(labels) > 1:
            raise ConversionError(f"{WHAT[kind]} was given {len(labels)} times ({', '.join(labels)}); give one")
    config = decoder_config(sources.decoder)
    layers = {
        key.split(".")[2] for s in sources.files for key in s.checkpoint.shapes if key.startswith("model.layers.")
    }
    if layers and len(layers) != config.num_hidden_layers:
        # Said before a model is made of it: a config may ask for millions.
        raise ConversionError(
            f"{sources.decoder / 'config.json'} asks for {config.num_hidden_layers} layers, the weights beside it have "
            f"{len(layers)}; download the decoder again"
        )
    width = config.hidden_size
    for kind, key in (("video_branch", "llama_proj.weight"), ("audio_branch", "audio_llama_proj.weight")):
        source = sources.one(kind)
        wide = source.checkpoint.shapes.get(key, (width,))[0] if source else width
        if source and wide != width:
            raise ConversionError(
                f"{source.label} speaks to a decoder {_named(wide)}, but the decoder in {sources.decoder} is "
                f"{_named(width)}; give the two of one size"
            )


def _named(width: int) -> str:
    size = {4096: " (7B)", 5120: " (13B)"}.get(width, "")
    return f"{width} wide{size}"


def decoder_config(folder: Path) -> Any:
    """The config of a decoder.

    Raises:
        ConversionError: if the folder has none.
    """
    try:
        config: Any = AutoConfig.from_pretrained(folder, **ON_DISK)
        if config.model_type == VideoLlamaConfig.model_type:
            raise ConversionError(f"{folder} is a converted model already; give it to videollm chat --model")
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"a {config.model_type!r} model answers no prompts")
        return config
    except (ValueError, OSError, KeyError, TypeError, ZeroDivisionError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConversionError(f"{folder / 'config.json'} is no config of a decoder ({reason})") from error
