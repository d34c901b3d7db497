"""Published LaViLa weights to our models: dual encoders, narrators, classifiers, and the paraphraser.

Source: Zhao et al., "LaViLa" (2022) and its released checkpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from ..errors import ConversionError, ModelNotFoundError
from ..models.imagebind.text_tokenizer import load_text_tokenizer
from ..models.lavila import (
    LavilaClassifierConfig,
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaNarratorConfig,
    LavilaProcessor,
)
from ..models.lavila.gpt2_tokenizer import load_gpt2_tokenizer
from ..models.lavila.processing_lavila import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from . import beginnings
from .audit import Piece, Plan, Shape, audit
from .checkpoint import SUFFIXES, Source, inspect, unwrap, without
from .folder import build
from .keymap import LAVILA_CLASSIFIER, LAVILA_DUAL_ENCODER, LAVILA_NARRATOR, T5, Drop, Rule, under
from .published import FILES

Config = LavilaDualEncoderConfig | LavilaNarratorConfig | LavilaClassifierConfig

WHAT: dict[str, str] = {
    "dual_encoder": "a dual encoder",
    "narrator": "a narrator",
    "classifier": "a classifier",
    "rephraser": "the paraphraser (T5)",
}
"""The kinds of published files."""

_RULES = {
    "dual_encoder": LAVILA_DUAL_ENCODER,
    "narrator": LAVILA_NARRATOR,
    "classifier": LAVILA_CLASSIFIER,
    "rephraser": T5,
}
_MODELS: dict[str, Any] = {
    "dual_encoder": LavilaDualEncoder,
    "narrator": LavilaNarrator,
    "classifier": LavilaForVideoClassification,
    "rephraser": T5ForConditionalGeneration,
}
_CONFIGS: dict[str, Any] = {
    "dual_encoder": LavilaDualEncoderConfig,
    "narrator": LavilaNarratorConfig,
    "classifier": LavilaClassifierConfig,
}
_TRAINED_ON_DEVICES = "module."
_PUBLISHED_HEAD_DIM = 64
"""Of every head of every published model, which the files do not say."""

_TOKENIZERS = Path(__file__).parents[1] / "assets" / "tokenizers"
_SHIPPED = {"clip": _TOKENIZERS / "clip_merges.txt.gz", "gpt2": _TOKENIZERS / "gpt2_merges.txt"}


def recognise(keys: Iterable[str]) -> str | None:
    """The kind of a published file, by the names in it: a key of `WHAT`, or None."""
    names = {key.removeprefix(_TRAINED_ON_DEVICES) for key in keys}
    if "img_queries" in names:
        return "narrator"
    if "visual.temporal_embed" in names:
        if names & {"fc_cls.weight", "fc_cls.0.weight"}:
            return "classifier"
        return "dual_encoder" if names & {"image_projection", "image_projection.0.weight"} else None
    return "rephraser" if "decoder.block.0.layer.1.EncDecAttention.q.weight" in names else None


def rules_of(kind: str, keys: Iterable[str]) -> tuple[Rule, ...]:
    """The key map of a file of a kind; with the prefix of training on several devices where all its keys have it."""
    prefixed = all(key.startswith(_TRAINED_ON_DEVICES) for key in keys)
    return under(_TRAINED_ON_DEVICES, _RULES[kind]) if prefixed else _RULES[kind]


def shape_of(kind: str, shapes: Mapping[str, Shape], fields: Mapping[str, Any] | None = None) -> Config:
    """The config of a model, as its published file shows it.

    Args:
        kind: of `WHAT`, but the paraphraser, which has its own config.
        shapes: of the tensors of the file.
        fields: of the config, where the model is not a published one; those of sub-configs as dicts.

    Raises:
        ConversionError: if they make no model.
    """
    known = {key.removeprefix(_TRAINED_ON_DEVICES): shape for key, shape in shapes.items()}
    try:
        found = {"vision_config": _vision(known), **_FIELDS[kind](known)}
        for name, value in (fields or {}).items():
            found[name] = {**found[name], **value} if isinstance(found.get(name), dict) else value
        return _CONFIGS[kind](**found)
    except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, StrictDataclassError) as error:
        words = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        reason = " ".join(words.split())[:200]
        raise ConversionError(f"these weights make no model ({reason}); get the published file anew") from error


def _depth(known: Mapping[str, Shape], before: str) -> int:
    return len({key[len(before) :].split(".")[0] for key in known if key.startswith(before)})


def _heads(width: int) -> int:
    return max(1, width // _PUBLISHED_HEAD_DIM)


def _vision(known: Mapping[str, Shape]) -> dict[str, Any]:
    width, _, _, patch = known["visual.patch_embed.proj.weight"]
    began_with_clip = "visual.ln_pre.weight" in known
    return {
        "hidden_size": width,
        "intermediate_size": known["visual.blocks.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _depth(known, "visual.blocks."),
        "num_attention_heads": _heads(width),
        "image_size": math.isqrt(known["visual.pos_embed"][1] - 1) * patch,
        "patch_size": patch,
        "num_frames": known["visual.temporal_embed"][1],
        "hidden_act": "quick_gelu" if began_with_clip else "gelu",
        "patch_bias": "visual.patch_embed.proj.bias" in known,
        "pre_layernorm": began_with_clip,
        "gated_time_attention": "visual.blocks.0.alpha_timeattn" in known,
    }


def _dual_encoder(known: Mapping[str, Shape]) -> dict[str, Any]:
    nonlinear = "image_projection.0.weight" in known
    if "token_embedding.weight" in known:
        vocabulary, width = known["token_embedding.weight"]
        text = {
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": known["transformer.resblocks.0.mlp.c_fc.weight"][0],
            "num_hidden_layers": _depth(known, "transformer.resblocks."),
            "num_attention_heads": _heads(width),
            "max_position_embeddings": known["positional_embedding"][0],
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": 0,
        }
    else:
        vocabulary, width = known["textual.embeddings.word_embeddings.weight"]
        text = {
            "model_type": "distilbert",
            "vocab_size": vocabulary,
            "dim": width,
            "hidden_dim": known["textual.transformer.layer.0.ffn.lin1.weight"][0],
            "n_layers": _depth(known, "textual.transformer.layer."),
            "n_heads": _heads(width),
            "max_position_embeddings": known["textual.embeddings.position_embeddings.weight"][0],
        }
    width = known["image_projection.0.weight"][0] if nonlinear else known["image_projection"][1]
    return {"text_config": text, "projection_dim": width, "nonlinear_projection": nonlinear}


def _narrator(known: Mapping[str, Shape]) -> dict[str, Any]:
    vocabulary, width = known["text_decoder.transformer.wte.weight"]
    looking = sorted(
        int(key.split(".")[3])
        for key in known
        if key.startswith("text_decoder.transformer.h.") and key.endswith(".crossattention.q_attn.weight")
    )
    head = known["img_attn_pool.to_kv.weight"][0] // 2
    positions = known["text_decoder.transformer.wpe.weight"][0]
    layers = _depth(known, "text_decoder.transformer.h.")
    return {
        "text_config": {
            "model_type": "gpt2",
            "vocab_size": vocabulary,
            "n_positions": positions,
            "n_embd": width,
            "n_layer": layers,
            "n_head": _heads(width),
            "bos_token_id": vocabulary - 1,
            "eos_token_id": vocabulary - 1,
        },
        "num_query_tokens": known["img_queries"][0],
        "pool_num_heads": known["img_attn_pool.to_q.weight"][0] // head,
        "pool_head_dim": head,
        # One layer that looks is the first of so many.
        "cross_attention_frequency": looking[1] - looking[0] if len(looking) > 1 else layers,
        "gated_cross_attention": f"text_decoder.transformer.h.{looking[0]}.alpha_cattn" in known,
        "max_text_tokens": min(77, positions),
    }


def _classifier(known: Mapping[str, Shape]) -> dict[str, Any]:
    if "fc_cls.weight" in known:
        return {"num_classes": [known["fc_cls.weight"][0]]}
    heads = _depth(known, "fc_cls.")
    return {"num_classes": [known[f"fc_cls.{head}.weight"][0] for head in range(heads)]}


_FIELDS: dict[str, Callable[[Mapping[str, Shape]], dict[str, Any]]] = {
    "dual_encoder": _dual_encoder,
    "narrator": _narrator,
    "classifier": _classifier,
}


def wanted(kind: str, config: Any) -> dict[str, Shape]:
    """Names and shapes of the parameters of a model, without making its numbers."""
    with torch.device("meta"):
        model = _MODELS[kind](config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    copies = {"narrator": ["language_model.lm_head.weight"]}.get(kind, [])
    if kind == "rephraser":
        copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
        copies += ["lm_head.weight"] * config.tie_word_embeddings
    return {name: shape for name, shape in shapes.items() if name not in copies}


def plan(label: str, kind: str, shapes: Mapping[str, Shape], config: Any) -> Plan:
    """The audited plan of a conversion of one file.

    Args:
        label: how errors call it.
        kind: of `WHAT`.
        shapes: of its tensors.
        config: of the model that it makes.

    Raises:
        ConversionError: if it does not make it, all of it and nothing else.
    """
    needed = wanted(kind, config)
    rules = rules_of(kind, shapes)
    if kind == "rephraser" and "lm_head.weight" not in needed:
        rules = (Drop("lm_head.weight", "the same as the embeddings of tokens"), *rules)
    return audit([Piece(label, rules, shapes)], needed)


def state_dict(published: Mapping[str, Any], config: Config) -> dict[str, torch.Tensor]:
    """Tensors under their published names to the state dict of our model.

    Args:
        published: what a published file holds, with or without what stands beside its ``state_dict``.
        config: of the model.

    Returns:
        tensors by our names; ``load_state_dict(..., strict=True)`` takes them, but for tied ones.

    Raises:
        ConversionError: for another kind or size, or keys too many or too few.
    """
    tensors = unwrap(published)
    kind = recognise(tensors)
    if kind is None or not isinstance(config, _CONFIGS[kind]):
        raise ConversionError(f"keys like {next(iter(tensors), None)!r} are of no {type(config).__name__}")
    _check_copies(kind, tensors.__getitem__, tensors)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    return {fill.target: fill.make(tensors.__getitem__) for fill in plan(kind, kind, shapes, config).fills}


def _check_copies(kind: str, read: Callable[[str], torch.Tensor], keys: Iterable[str]) -> None:
    """What is dropped as a copy is one."""
    pairs = {"narrator": ("text_decoder.transformer.wte.weight", "text_decoder.lm_head.weight")}
    if kind not in pairs:
        return
    first, second = (
        next((key for key in keys if key.removeprefix(_TRAINED_ON_DEVICES) == name), None) for name in pairs[kind]
    )
    if first is not None and second is not None and not torch.equal(read(first), read(second)):
        raise ConversionError(f"{second} is not the same as {first}, as in every published narrator; get the file anew")


# ---- from files to a folder


def convert(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    config: str | Path | None = None,
    drop: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """A published file to a folder that ``from_pretrained`` of our model takes, its processor too.

    Args:
        paths: the file; or the folder of the paraphraser. Beside it perhaps a tokenizer, where the published one is not
            wanted or not part of this package (DistilBERT's): its folder or file. Or, for training to begin with, the
            folder of a CLIP, perhaps with that of a DistilBERT; or those of a dual encoder and a GPT-2, for a narrator.
        out: the folder to make; it must not be there yet.
        config: a JSON file with fields of the model's config, where they are not the published ones (heads, which the
            weights do not show).
        drop: patterns (``*`` is anything) of published keys to leave out.
        dtype: of the weights; None: as in their file.
        say: takes lines for the user.

    Raises:
        ConversionError: in one line, what is missing, too much or damaged; nothing is left behind.
    """
    kinds = {beginnings.model_type(Path(path).expanduser()): Path(path).expanduser() for path in paths}
    fresh: dict[str, Any] = {"fields": _fields(config), "processor_of": _processor, "dtype": dtype, "say": say}
    if "clip" in kinds and set(kinds) <= {"clip", "distilbert"}:
        return beginnings.dual_encoder(kinds["clip"], kinds.get("distilbert"), Path(out), **fresh)
    if set(kinds) == {"lavila_dual_encoder", "gpt2"}:
        return beginnings.narrator(kinds["lavila_dual_encoder"], kinds["gpt2"], Path(out), **fresh)
    path, place = _given(paths)
    if path.is_dir():
        return _convert_rephraser(path, Path(out), drop, dtype, say)
    checkpoint = inspect(path)
    kind = recognise(checkpoint.shapes)
    if kind is None or kind == "rephraser":
        key = next(iter(checkpoint.shapes), "nothing")
        hint = "; of the paraphraser give its folder" if kind else ""
        raise ConversionError(f"{path} (it holds {key}, ...) is no model of LaViLa{hint or '; give a published file'}")
    published = FILES.get(path.name)
    if published is not None and published.family == "lavila" and published.kind != kind:
        raise ConversionError(
            f"{path} is published as {WHAT[published.kind]}, but holds {WHAT[kind]}; give each file its own name back"
        )
    source = Source(path.name, kind, checkpoint)
    shapes, left_out = without([source], drop)
    shape = shape_of(kind, shapes[source.label], _fields(config))
    made = plan(source.label, kind, shapes[source.label], shape)
    with checkpoint.open() as read:
        _check_copies(kind, read, checkpoint.shapes)
    processor = _processor(kind, shape, place, say)

    def save(folder: Path) -> None:
        processor.save_pretrained(folder)
        model = _MODELS[kind]
        if kind == "narrator":
            with torch.device("meta"):
                generation: Any = model(shape).generation_config
            generation._from_model_config = False
            generation.save_pretrained(folder)
        shape.architectures = [model.__name__]
        shape.dtype = dtype or next(iter(checkpoint.dtypes.values()))
        shape.save_pretrained(folder)

    run = checkpoint.notes.get("args")
    facts = {"family": "lavila", "model": run.get("model") if isinstance(run, Mapping) else None}
    return build(Path(out), [source], made, save, facts=facts, left_out=left_out, dtype=dtype, say=say)


def _given(paths: Sequence[str | Path]) -> tuple[Path, Path | None]:
    """The weights, and the tokenizer where one was given."""
    weights: list[Path] = []
    tokenizers: list[Path] = []
    for given in paths:
        path = Path(given).expanduser()
        is_weights = (
            (path / "config.json").is_file() and _weights_in(path) if path.is_dir() else path.suffix in SUFFIXES
        )
        (weights if is_weights else tokenizers).append(path)
    if len(weights) != 1 or len(tokenizers) > 1:
        raise ConversionError(
            f"LaViLa's models are one file each: give one (.pth), and perhaps a tokenizer; found {len(weights)} of "
            f"weights and {len(tokenizers)} others ({', '.join(map(str, [*weights, *tokenizers]))})"
        )
    return weights[0], tokenizers[0] if tokenizers else None


def _weights_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def _fields(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConversionError(f"the shape in {file} cannot be read ({error}); give a JSON object") from error


def _processor(kind: str, config: Config, place: Path | None, say: Callable[[str], None]) -> Any:
    vision = config.vision_config
    mean, std = (CLIP_MEAN, CLIP_STD) if vision.pre_layernorm else (IMAGENET_MEAN, IMAGENET_STD)
    frames = LavilaImageProcessor(vision.image_size, mean, std, vision.num_frames)
    if isinstance(config, LavilaClassifierConfig):
        if place is not None:
            raise ConversionError(f"a classifier reads no text; leave {place} out")
        return frames
    text = config.text_config
    text_kind = {"clip_text_model": "clip", "distilbert": "bert", "gpt2": "gpt2"}[text.model_type]
    chosen = place or _SHIPPED.get(text_kind)
    if chosen is None:
        raise ConversionError(
            "this dual encoder reads words as distilbert-base-uncased does; give its vocab.txt or its folder, too"
        )
    tokenizer = _tokenizer(text_kind, chosen)
    if len(tokenizer) > text.vocab_size:
        if place is not None:
            raise ConversionError(
                f"the tokenizer at {place} has {len(tokenizer)} tokens, the model {text.vocab_size}; give its own"
            )
        say(f"no tokenizer of {text.vocab_size} tokens is known: the folder gets none; give its own after the weights")
        return frames
    longest = config.max_text_tokens if isinstance(config, LavilaNarratorConfig) else text.max_position_embeddings
    return LavilaProcessor(frames, tokenizer, text_kind=text_kind, max_text_tokens=min(77, longest))


def _tokenizer(text_kind: str, place: Path) -> Any:
    try:
        if text_kind == "gpt2":
            return load_gpt2_tokenizer(place)
        if text_kind == "clip":
            return load_text_tokenizer(place)
        if place.is_dir():
            return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        lines = place.read_text(encoding="utf-8").splitlines()
        if "[CLS]" not in lines or "[UNK]" not in lines:
            raise ValueError("no vocabulary of WordPiece")
        return BertTokenizer(vocab={line: index for index, line in enumerate(lines)}, do_lower_case=True)
    except ModelNotFoundError as error:
        raise ConversionError(str(error)) from error
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"the tokenizer at {place} cannot be used ({reason}); give the one published") from error


def _convert_rephraser(
    folder: Path, out: Path, drop: Sequence[str], dtype: torch.dtype | None, say: Callable[[str], None]
) -> Path:
    files = _weights_in(folder)
    preferred = [file for file in files if file.suffix == ".safetensors"] or files
    if len(preferred) != 1:
        raise ConversionError(f"{folder} holds {len(preferred)} files of weights; the paraphraser is one")
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"{folder} has no config or tokenizer of a T5 ({reason}); download it again") from error
    if not isinstance(config, T5Config):
        raise ConversionError(f"{folder} is a {config.model_type}, the paraphraser is a T5; give its folder")
    source = Source(f"{folder.name}/{preferred[0].name}", "rephraser", inspect(preferred[0]))
    shapes, left_out = without([source], drop)
    made = plan(source.label, "rephraser", shapes[source.label], config)

    def save(into: Path) -> None:
        tokenizer.save_pretrained(into)
        config.architectures = [T5ForConditionalGeneration.__name__]
        config.dtype = dtype or next(iter(source.checkpoint.dtypes.values()))
        config.save_pretrained(into)

    return build(out, [source], made, save, facts={"family": "lavila"}, left_out=left_out, dtype=dtype, say=say)
