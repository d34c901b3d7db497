"""Key maps: how the names in a published file become the names in our models, written as tables.

A source is a key with fields in braces. ``{n}`` and every field that begins with n stand for a whole number,
``{rest}`` for anything, every other field for one part of a name between dots. The fields of the source are written
into the target. The first rule that matches a key counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True)
class Take:
    """A parameter under another name; transposed where its rows are our columns."""

    source: str
    target: str
    transposed: bool = False


@dataclass(frozen=True)
class Stack:
    """Parameters that are one of ours when put under each other; None is a row of zeros like the others."""

    sources: tuple[str | None, ...]
    target: str


@dataclass(frozen=True)
class Split:
    """A parameter that is several of ours, put under each other in equal parts."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Drop:
    """A key that our model has no place for, and why that is right."""

    source: str
    reason: str


Rule = Take | Stack | Split | Drop


@dataclass(frozen=True)
class Place:
    """Where a key goes.

    Attributes:
        target: one of our parameters.
        sources: all the keys that make it, in order; None: zeros.
        further: our parameters that the key's further parts make, where it is split.
        transposed: its rows are our columns.
    """

    target: str
    sources: tuple[str | None, ...]
    further: tuple[str, ...] = ()
    transposed: bool = False


def find(rules: Iterable[Rule], key: str) -> Place | Drop | None:
    """What the rules say about a key.

    Returns:
        the place of a parameter; the rule that drops it; or None where no rule matches.
    """
    for rule in rules:
        if isinstance(rule, Drop):
            if _pattern(rule.source).fullmatch(key):
                return rule
            continue
        sources = rule.sources if isinstance(rule, Stack) else (rule.source,)
        targets = rule.targets if isinstance(rule, Split) else (rule.target,)
        for source in sources:
            match = source is not None and _pattern(source).fullmatch(key)
            if match:
                fields = match.groupdict()
                filled = tuple(None if other is None else other.format_map(fields) for other in sources)
                first, *further = (target.format_map(fields) for target in targets)
                return Place(first, filled, tuple(further), isinstance(rule, Take) and rule.transposed)
    return None


def under(prefix: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules for keys that stand under a prefix."""

    def moved(rule: Rule) -> Rule:
        if isinstance(rule, Take | Split | Drop):
            return replace(rule, source=prefix + rule.source)
        return Stack(tuple(None if source is None else prefix + source for source in rule.sources), rule.target)

    return tuple(moved(rule) for rule in rules)


_FIELD = re.compile(r"\{(\w+)\}")


@cache
def _pattern(source: str) -> re.Pattern[str]:
    pieces, seen = [], set()
    for index, piece in enumerate(_FIELD.split(source)):
        if index % 2 == 0:
            pieces.append(re.escape(piece))
        elif piece in seen:
            pieces.append(f"(?P={piece})")
        else:
            seen.add(piece)
            wanted = r"\d+" if piece[0] == "n" else ".+" if piece == "rest" else r"[^.]+"
            pieces.append(f"(?P<{piece}>{wanted})")
    return re.compile("".join(pieces))


# ---- Video-LLaMA. Names: released checkpoints and the code that writes them; each table is one published file.

_COMPUTED_POSITIONS = "a constant (0, 1, 2, ...) that is computed"
_COMPUTED_ROTATION = "rotation frequencies, computed from the decoder's config"
_CAUSAL_MASK = "a constant (the causal mask) that is computed"
_LOGIT_SCALE = "a constant, kept in the config"

EVA_VIT: tuple[Rule, ...] = (
    Take("cls_token", "vision_model.embeddings.class_embedding"),
    Take("pos_embed", "vision_model.embeddings.position_embedding"),
    Take("patch_embed.proj.{p}", "vision_model.embeddings.patch_embedding.{p}"),
    Take("blocks.{n}.norm{n1}.{p}", "vision_model.encoder.layers.{n}.layer_norm{n1}.{p}"),
    Stack(
        ("blocks.{n}.attn.q_bias", None, "blocks.{n}.attn.v_bias"), "vision_model.encoder.layers.{n}.self_attn.qkv.bias"
    ),
    Take("blocks.{n}.attn.qkv.weight", "vision_model.encoder.layers.{n}.self_attn.qkv.weight"),
    Take("blocks.{n}.attn.proj.{p}", "vision_model.encoder.layers.{n}.self_attn.projection.{p}"),
    Take("blocks.{n}.mlp.{fc}.{p}", "vision_model.encoder.layers.{n}.mlp.{fc}.{p}"),
    Drop("norm.{p}", "the published model reads the tokens before the final norm"),
    Drop("fc_norm.{p}", "the published model reads the tokens before the final norm"),
    Drop("head.{p}", "a classifier that the published model does not use"),
    Drop("mask_token", "used only where pictures are masked in pretraining"),
)
"""The file ``eva_vit_g.pth``."""


def _qformer(theirs: str, ours: str) -> tuple[Rule, ...]:
    layer, our_layer = f"{theirs}.bert.encoder.layer.{{n}}.", f"{ours}.encoder.layer.{{n}}."
    text = "belongs to words, which the Q-Former is not given"
    return (
        Take(f"{theirs}.bert.embeddings.LayerNorm.{{p}}", f"{ours}.layernorm.{{p}}"),
        Drop(f"{theirs}.bert.embeddings.position_ids", _COMPUTED_POSITIONS),
        Drop(f"{theirs}.bert.embeddings.word_embeddings.weight", text),
        Drop(f"{theirs}.bert.embeddings.position_embeddings.weight", text),
        Drop(f"{theirs}.cls.{{rest}}", text),
        Drop(f"{layer}intermediate.dense.{{p}}", text),
        Drop(f"{layer}output.{{part}}.{{p}}", text),
        *(
            Take(f"{layer}{attention}.{part}.{{a}}.{{p}}", f"{our_layer}{attention}.{our_part}.{{a}}.{{p}}")
            for attention in ("attention", "crossattention")
            for part, our_part in (("self", "attention"), ("output", "output"))
        ),
        Take(f"{layer}intermediate_query.dense.{{p}}", f"{our_layer}intermediate_query.dense.{{p}}"),
        Take(f"{layer}output_query.{{part}}.{{p}}", f"{our_layer}output_query.{{part}}.{{p}}"),
    )


BLIP2: tuple[Rule, ...] = (
    Take("query_tokens", "query_tokens"),
    Take("ln_vision.{p}", "vision_model.post_layernorm.{p}"),
    *_qformer("Qformer", "qformer"),
    Drop("t5_proj.{p}", "leads to another language model (T5)"),
)
"""The file ``blip2_pretrained_flant5xxl.pth``, under its key ``model``."""


def _trunk(modality: str) -> tuple[Rule, ...]:
    preprocessor, trunk = f"modality_preprocessors.{modality}.", f"modality_trunks.{modality}."
    ours = f"{modality}_model."
    patches = {"audio": "rgbt_stem.proj.weight", "vision": "rgbt_stem.proj.1.weight"}
    return (
        Take(f"{preprocessor}cls_token", f"{ours}cls_token"),
        Take(f"{preprocessor}{patches[modality]}", f"{ours}patch_embedding.weight"),
        Take(f"{preprocessor}rgbt_stem.norm_layer.{{p}}", f"{ours}stem_layernorm.{{p}}"),
        Take(f"{preprocessor}pos_embedding_helper.pos_embed", f"{ours}position_embedding"),
        Take(f"{trunk}pre_transformer_layer.0.{{p}}", f"{ours}pre_layernorm.{{p}}"),
        *_blocks(trunk, ours),
        Take(f"modality_heads.{modality}.0.{{p}}", f"{ours}head_layernorm.{{p}}"),
        Take(f"modality_heads.{modality}.2.weight", f"{ours}head_projection.weight"),
        Drop(f"modality_postprocessors.{modality}.1.log_logit_scale", _LOGIT_SCALE),
    )


def _text_trunk() -> tuple[Rule, ...]:
    preprocessor, trunk = "modality_preprocessors.text.", "modality_trunks.text."
    return (
        Take(f"{preprocessor}token_embedding.weight", "text_model.token_embedding.weight"),
        Take(f"{preprocessor}pos_embed", "text_model.position_embedding"),
        Drop(f"{preprocessor}mask", _CAUSAL_MASK),
        *_blocks(trunk, "text_model."),
        Take("modality_heads.text.proj.0.{p}", "text_model.head_layernorm.{p}"),
        Take("modality_heads.text.proj.1.weight", "text_model.head_projection.weight"),
        Take("modality_postprocessors.text.1.log_logit_scale", "text_model.log_logit_scale"),
    )


def _blocks(trunk: str, ours: str) -> tuple[Rule, ...]:
    return (
        Take(f"{trunk}blocks.{{n}}.attn.in_proj_{{p}}", f"{ours}blocks.{{n}}.attn.in_proj.{{p}}"),
        Take(f"{trunk}blocks.{{n}}.attn.out_proj.{{p}}", f"{ours}blocks.{{n}}.attn.out_proj.{{p}}"),
        Take(f"{trunk}blocks.{{n}}.attn.bias_{{kv}}", f"{ours}blocks.{{n}}.attn.bias_{{kv}}"),
        Take(f"{trunk}blocks.{{n}}.norm_{{n1}}.{{p}}", f"{ours}blocks.{{n}}.norm_{{n1}}.{{p}}"),
        Take(f"{trunk}blocks.{{n}}.mlp.{{fc}}.{{p}}", f"{ours}blocks.{{n}}.mlp.{{fc}}.{{p}}"),
    )


def _without(modality: str, reason: str) -> tuple[Rule, ...]:
    parts = ("preprocessors", "trunks", "heads", "postprocessors")
    return tuple(Drop(f"modality_{part}.{modality}.{{rest}}", reason) for part in parts)


def imagebind(*trunks: str) -> tuple[Rule, ...]:
    """The file ``imagebind_huge.pth``, of which these trunks are wanted: ``"audio"``, ``"vision"``, ``"text"``."""
    reasons = {
        "audio": "a trunk that this model has no use for",
        "vision": "sees in the place of the ear while the published audio branch is trained; unused when it answers",
        "text": "a trunk that this model has no use for",
        "depth": "a sense that no model here has",
        "thermal": "a sense that no model here has",
        "imu": "a sense that no model here has",
    }
    rules: tuple[Rule, ...] = ()
    for modality, reason in reasons.items():
        if modality not in trunks:
            rules += _without(modality, reason)
        else:
            rules += _text_trunk() if modality == "text" else _trunk(modality)
    return rules


_COPIES: tuple[Rule, ...] = (
    Drop("{q}.bert.embeddings.position_ids", _COMPUTED_POSITIONS),
    Drop("llama_model.model.layers.{n}.self_attn.rotary_emb.inv_freq", _COMPUTED_ROTATION),
    Drop("audio_encoder.modality_postprocessors.{m}.1.log_logit_scale", _LOGIT_SCALE),
    Drop("audio_encoder.modality_preprocessors.text.mask", _CAUSAL_MASK),
)
"""Buffers of other parts that the published trainer saved along with a branch."""

VIDEO_BRANCH: tuple[Rule, ...] = (
    *_COPIES,
    Take("video_query_tokens", "video_query_tokens"),
    Take("video_frame_position_embedding.weight", "frame_position_embedding.weight"),
    Take("llama_proj.{p}", "video_projection.{p}"),
    *_qformer("video_Qformer", "video_qformer"),
)
"""A checkpoint of the vision-language branch, under its key ``model``."""

AUDIO_BRANCH: tuple[Rule, ...] = (
    *_COPIES,
    Take("audio_query_tokens", "audio_query_tokens"),
    Take("audio_position_embedding.weight", "audio_position_embedding.weight"),
    Take("audio_llama_proj.{p}", "audio_projection.{p}"),
    *_qformer("audio_Qformer", "audio_qformer"),
)
"""A checkpoint of the audio-language branch, under its key ``model``."""

LLAMA: tuple[Rule, ...] = (
    Drop("model.layers.{n}.self_attn.rotary_emb.inv_freq", _COMPUTED_ROTATION),
    Take("model.{rest}", "language_model.model.{rest}"),
    Take("lm_head.weight", "language_model.lm_head.weight"),
)
"""A decoder's own ``save_pretrained`` folder."""
