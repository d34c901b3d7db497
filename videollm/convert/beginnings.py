"""What training begins with: other people's finished encoders and decoders in the places of our models.

CLIP for LaViLa's dual encoder; a dual encoder and GPT-2 for its narrator; the first stage and BERT for the second of
LF-VILA. What has no such beginning is random.

Source: Zhao et al., "LaViLa" (2022), appendix; Sun et al. 2022, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.auto.configuration_auto import AutoConfig

from ..errors import ConversionError
from ..models.lavila import LavilaDualEncoder, LavilaDualEncoderConfig, LavilaNarrator, LavilaNarratorConfig
from ..models.lf_vila import LfVilaConfig, LfVilaForPreTraining, LfVilaProcessor
from .checkpoint import SUFFIXES, inspect
from .folder import staged

Tensors = dict[str, torch.Tensor]
Say = Callable[[str], None]


def model_type(folder: Path) -> str | None:
    """What the config.json of a folder says that it is of; None: it has none."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def dual_encoder(
    clip: Path, words: Path | None, out: Path, fields: Mapping[str, Any], processor_of: Callable[..., Any],
    dtype: torch.dtype | None, say: Say,
) -> Path:  # fmt: skip
    """A dual encoder that begins as CLIP: its eye sees every frame as CLIP does, and nothing along time yet.

    Args:
        clip: folder of a CLIP, as the library or OpenAI's hub has it.
        words: folder of a DistilBERT that is to read texts in place of CLIP.
        out: the folder to make.
        fields: of the config, where they are not the published ones.
        processor_of: the processor of a config.
        dtype: of the weights; float32 if None.
        say: takes lines for the user.

    Raises:
        ConversionError: a folder that holds something else.
    """
    tensors, theirs = _tensors(clip), _config(clip)
    eye = theirs.vision_config
    shape = LavilaDualEncoderConfig(**{
        "vision_config": {
            **{name: getattr(eye, name) for name in (
                "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
                "patch_size",
            )},
            "hidden_act": eye.hidden_act,
        },
        "text_config": (theirs.text_config if words is None else _config(words)).to_dict(),
        **fields,
    })  # fmt: skip
    torch.manual_seed(0)
    model = LavilaDualEncoder(shape)
    _put(model.vision_model, clip_eye(tensors, eye.num_hidden_layers), clip, ("time_", "norm_time", "time_embedding"))
    if words is None:
        _put(model.text_model, _under(tensors, "text_model."), clip)
    else:
        _put(model.text_model, _without(_tensors(words), "distilbert."), words)
    return _save(model, processor_of("dual_encoder", shape, words, say), out, dtype, say, [clip, words])


def clip_eye(tensors: Mapping[str, torch.Tensor], layers: int) -> Tensors:
    """CLIP's vision tower by the names of our space-time encoder; attention along time is not among them.

    Args:
        tensors: of the library's ``CLIPModel``.
        layers: of its vision tower.
    """
    theirs, ours = "vision_model.", {}
    ours["class_token"] = tensors[f"{theirs}embeddings.class_embedding"].reshape(1, 1, -1)
    ours["patch_embedding.weight"] = tensors[f"{theirs}embeddings.patch_embedding.weight"]
    ours["position_embedding"] = tensors[f"{theirs}embeddings.position_embedding.weight"][None]
    renamed = {"pre_layrnorm": "pre_layernorm", "post_layernorm": "layernorm"}
    for layer in range(layers):
        before, after = f"encoder.layers.{layer}.", f"blocks.{layer}."
        renamed |= {
            f"{before}layer_norm1": f"{after}norm_space", f"{before}layer_norm2": f"{after}norm_mlp",
            f"{before}mlp.fc1": f"{after}mlp.fc1", f"{before}mlp.fc2": f"{after}mlp.fc2",
            f"{before}self_attn.out_proj": f"{after}space_attention.proj",
        }  # fmt: skip
        for kind in ("weight", "bias"):
            parts = [tensors[f"{theirs}{before}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            ours[f"{after}space_attention.qkv.{kind}"] = torch.cat(parts)
    for name, ours_name in renamed.items():
        for kind in ("weight", "bias"):
            ours[f"{ours_name}.{kind}"] = tensors[f"{theirs}{name}.{kind}"]
    return ours


def narrator(
    eye: Path, words: Path, out: Path, fields: Mapping[str, Any], processor_of: Callable[..., Any],
    dtype: torch.dtype | None, say: Say,
) -> Path:  # fmt: skip
    """A narrator that sees as a dual encoder does and speaks as GPT-2; its gates are shut.

    Args:
        eye: folder of a dual encoder.
        words: folder of a GPT-2, of any size.
        out, fields, processor_of, dtype, say: see `dual_encoder`.

    Raises:
        ConversionError: a folder that holds something else.
    """
    vision = json.loads((eye / "config.json").read_text(encoding="utf-8"))["vision_config"]
    text = _config(words)
    # As published: GPT-2 looks in every layer, GPT-2 XL in every third, or second with the eye of 224 pixels.
    often = 1 if text.n_layer < 48 else 3 if vision["image_size"] > 224 else 2
    given = {"cross_attention_frequency": often, **fields}
    shape = LavilaNarratorConfig(vision_config=vision, text_config=text.to_dict(), **given)
    torch.manual_seed(0)
    model = LavilaNarrator(shape)
    _put(model.vision_model, _under(_tensors(eye), "vision_model."), eye)
    looks = ("crossattention", "cross_attn", "alpha_cattn", "alpha_dense")
    speaks = {name: value for name, value in _without(_tensors(words), "transformer.").items()
              if not name.endswith((".attn.bias", ".attn.masked_bias"))}  # fmt: skip
    _put(model.language_model.transformer, speaks, words, looks)
    return _save(model, processor_of("narrator", shape, None, say), out, dtype, say, [eye, words])


def second_stage(first: Path, bert: Path, out: Path, dtype: torch.dtype | None, say: Say) -> Path:
    """LF-VILA's second stage of pretraining: all of the first, and the later layers of BERT, its pooler and its head.

    Args:
        first: folder of a model of the first stage.
        bert: folder of the BERT with which it began.
        out, dtype, say: see `dual_encoder`.

    Raises:
        ConversionError: a folder that holds something else.
    """
    config = LfVilaConfig.from_pretrained(first, local_files_only=True)
    layers = _config(bert).num_hidden_layers
    known = config.sentence_layers + config.paragraph_layers
    if layers <= known:
        raise ConversionError(
            f"the BERT in {bert} has {layers} layers, which the first stage has already; give its own"
        )
    config.text_config.num_hidden_layers = layers
    torch.manual_seed(0)
    model = LfVilaForPreTraining(config)
    tensors = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): value
               for name, value in _tensors(bert).items()}  # fmt: skip
    reads = _without(tensors, "bert.")
    later = tuple(f"encoder.layer.{layer}." for layer in range(known, layers))
    _take(model.text_encoder.bert, {k: v for k, v in reads.items() if k.startswith((*later, "pooler."))}, bert)
    head = "cls.predictions."
    if f"{head}transform.dense.weight" in tensors:
        _take(model.mlm_transform, _under(tensors, f"{head}transform."), bert)
        word_embeddings = reads["embeddings.word_embeddings.weight"]  # of which the head's weight is the same
        weights = {"weight": tensors.get(f"{head}decoder.weight", word_embeddings), "bias": tensors[f"{head}bias"]}
        _take(model.mlm_decoder, weights, bert)
    own = {
        k: v for k, v in _tensors(first).items() if not k.startswith(("mlm_", "match_head.")) and ".pooler." not in k
    }
    _take(model, own, first)
    processor = LfVilaProcessor.from_pretrained(first, local_files_only=True)
    return _save(model, processor, out, dtype, say, [first, bert])


# ---- tensors of folders


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConversionError(f"{folder} has no config of a model ({reason}); download it again") from error


def _tensors(folder: Path) -> Tensors:
    """All floating tensors of a folder; of safetensors where it has both."""
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    chosen = [path for path in files if path.suffix == ".safetensors"] or files
    if not chosen:
        raise ConversionError(f"{folder} holds no weights; download it again")
    found: Tensors = {}
    for path in chosen:
        with inspect(path).open() as read:
            found |= {name: read(name).float() for name in inspect(path).shapes}
    return found


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _without(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    """Names without a prefix, which some files have and others not."""
    return _under(tensors, prefix) or dict(tensors)


def _put(part: nn.Module, tensors: Mapping[str, torch.Tensor], source: Path, begins: tuple[str, ...] = ()) -> None:
    """Load a part; only what has one of the names that begin at random may be missing."""
    missing = [name for name, _ in part.named_parameters() if name not in tensors]
    odd = [name for name in missing if not any(one in name for one in begins)]
    if odd:
        raise ConversionError(f"{source} lacks {len(odd)} tensors of the model, e.g. {odd[0]}; give the one it is for")
    _take(part, {name: value for name, value in tensors.items() if name in dict(part.named_parameters())}, source)


def _take(part: nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Load tensors into a part, all of which it has."""
    places = dict(part.named_parameters(remove_duplicate=False))
    for name, value in tensors.items():
        place = places.get(name)
        if place is None or place.shape != value.shape:
            size = "none" if place is None else "x".join(map(str, place.shape))
            found = "x".join(map(str, value.shape))
            raise ConversionError(f"{source} has {name} of {found}, the model has {size}; give the one it is for")
        with torch.no_grad():
            place.copy_(value)


def _save(model: Any, processor: Any, out: Path, dtype: torch.dtype | None, say: Say, sources: list[Any]) -> Path:
    model.to(dtype=dtype or torch.float32)
    with staged(out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        facts = {"kind": "beginning", "sources": [str(source) for source in sources if source is not None]}
        (folder / "conversion.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    say(f"begins with {' and '.join(facts['sources'])}; what these do not have is random")
    return out
