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


# ---- LaViLa. Names without the ``module.`` that training on several devices puts before each.

_ZEROS = "a constant (zeros)"
_SAME_AS_EMBEDDINGS = "the same as the embeddings of tokens"

LAVILA_VISION: tuple[Rule, ...] = (
    Take("visual.cls_token", "vision_model.class_token"),
    Take("visual.pos_embed", "vision_model.position_embedding"),
    Take("visual.temporal_embed", "vision_model.time_embedding"),
    Take("visual.patch_embed.proj.{p}", "vision_model.patch_embedding.{p}"),
    Take("visual.ln_pre.{p}", "vision_model.pre_layernorm.{p}"),
    Take("visual.blocks.{n}.norm1.{p}", "vision_model.blocks.{n}.norm_space.{p}"),
    Take("visual.blocks.{n}.norm2.{p}", "vision_model.blocks.{n}.norm_mlp.{p}"),
    Take("visual.blocks.{n}.norm3.{p}", "vision_model.blocks.{n}.norm_time.{p}"),
    Take("visual.blocks.{n}.attn.{part}.{p}", "vision_model.blocks.{n}.space_attention.{part}.{p}"),
    Take("visual.blocks.{n}.timeattn.{part}.{p}", "vision_model.blocks.{n}.time_attention.{part}.{p}"),
    Take("visual.blocks.{n}.alpha_timeattn", "vision_model.blocks.{n}.time_gate"),
    Take("visual.blocks.{n}.mlp.{fc}.{p}", "vision_model.blocks.{n}.mlp.{fc}.{p}"),
    Take("visual.norm.{p}", "vision_model.layernorm.{p}"),
)
"""The space-time encoder, which is part of every file."""


def _clip_text() -> tuple[Rule, ...]:
    theirs, ours = "transformer.resblocks.{n}.", "text_model.encoder.layers.{n}."
    return (
        Take("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        Take("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        Split(f"{theirs}attn.in_proj_{{p}}", tuple(f"{ours}self_attn.{part}_proj.{{p}}" for part in "qkv")),
        Take(f"{theirs}attn.out_proj.{{p}}", f"{ours}self_attn.out_proj.{{p}}"),
        Take(f"{theirs}ln_{{n1}}.{{p}}", f"{ours}layer_norm{{n1}}.{{p}}"),
        Take(f"{theirs}mlp.c_fc.{{p}}", f"{ours}mlp.fc1.{{p}}"),
        Take(f"{theirs}mlp.c_proj.{{p}}", f"{ours}mlp.fc2.{{p}}"),
        Take("ln_final.{p}", "text_model.final_layer_norm.{p}"),
    )


LAVILA_DUAL_ENCODER: tuple[Rule, ...] = (
    *LAVILA_VISION,
    *_clip_text(),
    Drop("textual.embeddings.position_ids", _COMPUTED_POSITIONS),
    Take("textual.{rest}", "text_model.{rest}"),
    Take("image_projection", "visual_projection.weight", transposed=True),
    Take("image_projection.0.{p}", "visual_projection.{p}"),
    Take("text_projection", "text_projection.weight", transposed=True),
    Take("text_projection.1.{p}", "text_projection.{p}"),
    Take("logit_scale", "log_logit_scale"),
)
"""A dual encoder, with CLIP's text transformer or with DistilBERT, and EgoVLP's projections."""

LAVILA_NARRATOR: tuple[Rule, ...] = (
    *LAVILA_VISION,
    Take("img_queries", "visual_pool.queries"),
    Take("img_attn_pool.norm.gamma", "visual_pool.norm_queries.weight"),
    Take("img_attn_pool.context_norm.gamma", "visual_pool.norm_seen.weight"),
    Take("img_attn_pool.to_q.weight", "visual_pool.to_query.weight"),
    Take("img_attn_pool.to_kv.weight", "visual_pool.to_key_value.weight"),
    Take("img_attn_pool.to_out.weight", "visual_pool.to_out.weight"),
    Take("img_attn_pool_norm.gamma", "visual_pool.layernorm.weight"),
    *(Drop(f"img_attn_pool{norm}.beta", _ZEROS) for norm in (".norm", ".context_norm", "_norm")),
    *(
        Drop(f"text_decoder.transformer.h.{{n}}.{attention}.{mask}", _CAUSAL_MASK)
        for attention in ("attn", "crossattention")
        for mask in ("bias", "masked_bias")
    ),
    Drop("text_decoder.lm_head.weight", _SAME_AS_EMBEDDINGS),
    Take("text_decoder.transformer.{rest}", "language_model.transformer.{rest}"),
)
"""A narrator."""

LAVILA_CLASSIFIER: tuple[Rule, ...] = (
    *LAVILA_VISION,
    Take("fc_cls.{n}.{p}", "heads.{n}.{p}"),
    Take("fc_cls.{p}", "heads.0.{p}"),
)
"""A classifier with one head or several."""

T5: tuple[Rule, ...] = (
    *(Drop(f"{name}.weight", _SAME_AS_EMBEDDINGS) for name in ("encoder.embed_tokens", "decoder.embed_tokens")),
    Drop(
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        "attention to the other sentence has no positions",
    ),
    Take("{rest}", "{rest}"),
)
"""The paraphraser that rephrases, in the library's own names."""
