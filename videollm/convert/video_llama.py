"""Published Video-LLaMA weights to `VideoLlamaForConditionalGeneration`.

Source: Zhang et al., "Video-LLaMA" (2023) and its released checkpoints; BLIP-2 and EVA-CLIP for the frozen parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.tokenization_auto import AutoTokenizer

from ..errors import ConversionError, ModelNotFoundError
from ..models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from ..models.video_llama.chat_templates import OWN, PUBLISHED
from ..models.video_llama.llama_tokenizer import PLACEHOLDERS, as_published, llama_tokenizer
from .audit import Piece, Plan, Shape, audit
from .checkpoint import ON_DISK, unwrap, without
from .folder import build
from .imagebind import audio_logit_scale, imagebind_state_dict
from .keymap import AUDIO_BRANCH, BLIP2, EVA_VIT, LLAMA, VIDEO_BRANCH, Drop, Rule, find, imagebind, under
from .pieces import WHAT, Sources, check_complete, decoder_config, gather, recognise
from .published import FILES

__all__ = ["convert", "imagebind_state_dict", "our_name", "plan", "recognise", "rules_of", "state_dict", "wanted"]


def rules_of(kind: str, config: VideoLlamaConfig) -> tuple[Rule, ...]:
    """The key map of a kind of published file, for a model of this shape."""
    # The file has one block more than the model runs: its features are those of the last block but one.
    last = config.vision_config.num_hidden_layers
    eva_vit = (Drop(f"blocks.{last}.{{rest}}", "the block after the last that the published model runs"), *EVA_VIT)
    ears = imagebind("audio") if config.has_audio else imagebind()
    tied = Drop("lm_head.weight", "the same as the embeddings of tokens")
    llama = (tied, *LLAMA) if config.text_config.tie_word_embeddings else LLAMA
    tables: dict[str, tuple[Rule, ...]] = {
        "eva_vit": eva_vit,
        "blip2": BLIP2,
        "imagebind": ears,
        "video_branch": VIDEO_BRANCH,
        "audio_branch": AUDIO_BRANCH,
        "llama": llama,
    }
    tables["whole"] = (
        *under("visual_encoder.", eva_vit),
        *under("audio_encoder.", ears),
        *under("llama_model.", llama),
        *BLIP2,
        *VIDEO_BRANCH,
        *AUDIO_BRANCH,
    )
    return tables[kind]


def wanted(config: VideoLlamaConfig) -> dict[str, Shape]:
    """Names and shapes of the parameters of a model, without making its numbers."""
    with torch.device("meta"):
        model = VideoLlamaForConditionalGeneration(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.text_config.tie_word_embeddings:
        shapes.pop("language_model.lm_head.weight", None)
    return shapes


def plan(files: Mapping[str, tuple[str, Mapping[str, Shape]]], config: VideoLlamaConfig) -> Plan:
    """The audited plan of a conversion (see `videollm.convert.audit`).

    Args:
        files: by label: the kind (of `WHAT`) and the shapes of a file.
        config: of the model that they make.

    Raises:
        ConversionError: if they do not make it, all of it and nothing else.
    """
    pieces = [Piece(label, rules_of(kind, config), shapes) for label, (kind, shapes) in files.items()]
    return audit(pieces, wanted(config))


def state_dict(*pieces: Mapping[str, Any], config: VideoLlamaConfig) -> dict[str, torch.Tensor]:
    """Tensors under their published names to the state dict of a `VideoLlamaForConditionalGeneration`.

    Each piece is what one published file holds: an EVA ViT, a BLIP-2 Q-Former, an ImageBind, a checkpoint of the video
    or of the audio branch, a LLaMA; or one piece is the whole state dict of the published model. What a piece is, is
    seen from its keys; a checkpoint (``{"model": {...}, "optimizer": ...}``) may be given as it was loaded.

    Nothing is left to chance: every key is used once or dropped by a rule that says why, every parameter is filled;
    ``load_state_dict(..., strict=True)`` takes the result.

    Args:
        pieces: tensors by published name, of any float dtype; values are not copied where they need no change.
        config: of the model; without an ``audio_config`` ImageBind and audio branch are not needed.

    Returns:
        tensors by our names, in the dtypes of the pieces.

    Raises:
        ConversionError: for pieces that are unknown, missing, of another size, or with keys too many or too few.
    """
    tensors: list[Mapping[str, torch.Tensor]] = [unwrap(piece) for piece in pieces]
    files: dict[str, tuple[str, Mapping[str, Shape]]] = {}
    for index, piece in enumerate(tensors):
        kind = recognise(piece)
        if kind is None:
            known = ", ".join(WHAT.values())
            raise ConversionError(f"piece {index + 1} with keys like {next(iter(piece), None)!r} is none of {known}")
        label = kind if kind not in files else f"{kind} (piece {index + 1})"
        files[label] = (kind, {key: tuple(value.shape) for key, value in piece.items()})
    return {fill.target: fill.make(tensors[fill.piece].__getitem__) for fill in plan(files, config).fills}


def our_name(published: str, config: VideoLlamaConfig) -> str | None:
    """Our name of a parameter of the published model (whole state dict); None for a key that is dropped.

    Raises:
        ConversionError: for a key that no rule knows.
    """
    place = find(rules_of("whole", config), published)
    if place is None:
        raise ConversionError(f"no rule for the published key {published!r}")
    return None if isinstance(place, Drop) else place.target


# ---- from files to a folder

PROMPTS = (*PUBLISHED, OWN)
"""The chat templates that a branch may have been trained with; the last is that of a newer decoder's tokenizer."""

_MAX_NEW_TOKENS = 300


def convert(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    prompt: str | None = None,
    audio: bool = True,
    config: str | Path | None = None,
    drop: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Published files to a folder that `videollm.models.hub.load` takes.

    The files are recognised by what is in them; their order is free. At most one of them is in memory at a time, and
    one shard of the result. The folder appears whole or not at all.

    Args:
        paths: the EVA ViT, the BLIP-2 Q-Former, a video branch, the folder of the decoder, and for sound ImageBind and
            an audio branch; or folders that hold several of them. ``KIND=PATH`` (a key of `WHAT`) says what a file is
            thought to be, and is checked.
        out: the folder to make; it must not be there yet.
        prompt: of `PROMPTS`; None: what the branch was trained with, where that can be told.
        audio: False: a model that only sees, without ImageBind and audio branch.
        config: a JSON file with the shape of the model, where it is not the published one (fields of
            `VideoLlamaConfig` without ``text_config``, which is the decoder's own).
        drop: patterns (``*`` is anything) of published keys to leave out.
        dtype: of the weights; None: as in their files.
        say: takes lines for the user.

    Returns:
        ``out``.

    Raises:
        ConversionError: in one line, what is missing, too much, damaged, of another kind or size; nothing is left
            behind.
    """
    out = Path(out)
    if prompt is not None and prompt not in PROMPTS:
        raise ConversionError(f"no prompt format {prompt!r}; choose one of {', '.join(PROMPTS)}")
    sources = gather(paths)
    check_complete(sources, audio)
    template, reason = (prompt, "as asked") if prompt else _detect_prompt(sources)
    tokenizer = _tokenizer(sources.decoder, own=template == OWN)
    shape = _shape(sources, tokenizer, audio, config)
    shapes, left_out = without(sources.files, drop)
    made = plan({source.label: (source.kind, shapes[source.label]) for source in sources.files}, shape)
    with torch.device("meta"):
        model = VideoLlamaForConditionalGeneration(shape)
    processor = VideoLlamaProcessor.for_model(shape, tokenizer, template=template, as_published=True)
    say(f"prompts: {template} ({reason})")

    def save(folder: Path) -> None:
        _save_processor(processor, folder)
        generation: Any = model.generation_config
        generation.max_new_tokens = _MAX_NEW_TOKENS
        # Words of the template that are one token end an answer for people who call `generate` themselves, too.
        ends = [ids[0] for ids in processor.stop_sequences if len(ids) == 1]
        if ends:
            generation.eos_token_id = [shape.eos_token_id, *ends]
        generation._from_model_config = False
        generation.save_pretrained(folder)
        shape.architectures = [type(model).__name__]
        shape.dtype = dtype or torch.bfloat16
        shape.save_pretrained(folder)

    facts = {"family": "video-llama", "template": template}
    return build(out, sources.files, made, save, facts=facts, left_out=left_out, dtype=dtype, say=say)


def _tokenizer(folder: Path, own: bool) -> Any:
    """The decoder's tokenizer: with the published tokenisation, or its own where its own template is wanted."""
    try:
        if own:
            # Newer tokenizers are one file; an older kind has no template of its own.
            newer = (folder / "tokenizer.json").is_file()
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **ON_DISK) if newer else None
            if not newer or not tokenizer.chat_template:
                raise ConversionError(f"the tokenizer in {folder} has no chat template; choose another --prompt")
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            return tokenizer
        if (folder / "tokenizer.model").is_file():
            return llama_tokenizer(folder / "tokenizer.model")
        if (folder / "tokenizer.json").is_file():
            return as_published(AutoTokenizer.from_pretrained(folder, **ON_DISK))
    except (ValueError, OSError, ModelNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"the tokenizer in {folder} cannot be used ({reason})") from error
    raise ConversionError(
        f"{folder} has neither tokenizer.model nor tokenizer.json; put the one that belongs to the decoder there"
    )


def _shape(sources: Sources, tokenizer: Any, audio: bool, file: str | Path | None) -> VideoLlamaConfig:
    """The published shape, or that of the file, with the sizes that the files show."""
    fields: dict[str, Any] = {}
    if file is not None:
        try:
            fields = dict(json.loads(Path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConversionError(f"the shape in {file} cannot be read ({error}); give a JSON object") from error
    text = decoder_config(sources.decoder)
    if all(name in tokenizer.get_vocab() for name in PLACEHOLDERS):
        placeholders = tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
        known = min(placeholders)
    else:  # behind everything that the decoder or its tokenizer knows
        known = len(tokenizer)
        placeholders = [max(known, text.vocab_size) + i for i in range(len(PLACEHOLDERS))]
    if known > text.vocab_size:
        raise ConversionError(
            f"the tokenizer in {sources.decoder} has {known} tokens, the decoder only {text.vocab_size}; put the "
            f"tokenizer there that belongs to it"
        )
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    # The first conversions of LLaMA state other ids than their tokenizer has.
    text.update(special)
    fields |= special
    fields["text_config"] = text.to_dict()
    fields["video_token_id"], fields["audio_token_id"] = placeholders
    ear = dict(fields.get("audio_config") or {})
    for kind, key, axis, name in (
        ("blip2", "query_tokens", 1, "num_query_tokens"),
        ("video_branch", "video_query_tokens", 1, "num_video_query_tokens"),
        ("video_branch", "video_frame_position_embedding.weight", 0, "max_frame_positions"),
        ("audio_branch", "audio_query_tokens", 1, "num_audio_query_tokens"),
        ("audio_branch", "audio_position_embedding.weight", 0, "max_audio_positions"),
    ):
        source = sources.one(kind)
        if source is not None and len(source.checkpoint.shapes.get(key, ())) > axis:
            fields[name] = source.checkpoint.shapes[key][axis]
    ears = sources.one("imagebind")
    if audio and ears is not None:
        ear["logit_scale"] = audio_logit_scale(ears.checkpoint, ear.get("logit_scale", 20.0))
    fields["audio_config"] = ear if audio else None
    if not audio:
        fields.pop("audio_qformer_config", None)
    try:
        return VideoLlamaConfig(**fields)
    except (ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"these files and {file or 'the published shape'} make no model ({reason})") from error


def _detect_prompt(sources: Sources) -> tuple[str, str]:
    """The chat template that the branch was trained with, and how that is known."""
    source = sources.one("video_branch")
    assert source is not None
    settings = source.checkpoint.notes.get("config")
    model = settings.get("model") if isinstance(settings, Mapping) else None
    words = " ".join(str(value) for value in model.values()) if isinstance(model, Mapping) else ""
    known = FILES.get(source.checkpoint.path.name)
    places = [(words, "the settings it was trained with"), (source.label, "its name")]
    places += [(sources.decoder.name, "the name of the decoder's folder")]
    if known is not None and known.prompt is not None:
        return known.prompt, f"{known.name} is published so"
    for text, reason in places:
        found = {
            name
            for name, signs in (("llama_2_chat", r"llama[-_ ]?(v|2)"), ("vicuna_v0", r"vicuna|ziya|billa|###"))
            if re.search(signs, text.lower().replace("video-llama", "").replace("video_llama", ""))
        }
        if len(found) == 1:
            return found.pop(), f"{reason} says so"
    raise ConversionError(
        f"nothing tells which prompts {source.label} was trained with; say --prompt {' or --prompt '.join(PUBLISHED)}"
    )


def _save_processor(processor: VideoLlamaProcessor, folder: Path) -> None:
    try:
        processor.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:
        # The library of tokenizers raises nothing but Exception, also where a disk is full.
        if "os error" not in str(error):
            raise
        raise OSError(str(error)) from error
