"""LaViLa's published files in miniature: the same names and layouts, with seeded random numbers.

The names are written out here once more, on purpose: this file must not learn them from the key map it tests.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]

WIDTH, DEPTH, PATCH, SIDE, FRAMES, SHARED = 32, 2, 8, 2, 4, 20
TEXT, WORDS, CONTEXT = 24, 50, 12
SHAPE: dict[str, Any] = {"vision_config": {"num_attention_heads": 2}, "text_config": {"num_attention_heads": 2}}
"""What ``--config`` is given: the heads, which weights do not show."""


class Numbers:
    """Seeded random tensors."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator) * 0.2

    def linear(self, name: str, rows: int, columns: int) -> Tensors:
        return {f"{name}.weight": self(rows, columns), f"{name}.bias": self(rows)}

    def norm(self, name: str, width: int) -> Tensors:
        return {f"{name}.weight": 1 + self(width), f"{name}.bias": self(width)}


def visual(draw: Numbers, began_with_clip: bool = True) -> Tensors:
    found = {
        "visual.cls_token": draw(1, 1, WIDTH),
        "visual.pos_embed": draw(1, 1 + SIDE * SIDE, WIDTH),
        "visual.temporal_embed": draw(1, FRAMES, WIDTH),
        "visual.patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH),
    }
    if began_with_clip:
        found |= draw.norm("visual.ln_pre", WIDTH)
    else:
        found["visual.patch_embed.proj.bias"] = draw(WIDTH)
    for layer in range(DEPTH):
        block = f"visual.blocks.{layer}."
        for norm in ("norm1", "norm2", "norm3"):
            found |= draw.norm(block + norm, WIDTH)
        for attention in ("attn", "timeattn"):
            found |= draw.linear(f"{block}{attention}.qkv", 3 * WIDTH, WIDTH)
            found |= draw.linear(f"{block}{attention}.proj", WIDTH, WIDTH)
        found |= draw.linear(f"{block}mlp.fc1", 2 * WIDTH, WIDTH) | draw.linear(f"{block}mlp.fc2", WIDTH, 2 * WIDTH)
    return found | draw.norm("visual.norm", WIDTH)


def dual_encoder(seed: int = 0) -> Tensors:
    draw = Numbers(seed)
    found = visual(draw)
    for layer in range(2):
        block = f"transformer.resblocks.{layer}."
        found |= {f"{block}attn.in_proj_weight": draw(3 * TEXT, TEXT), f"{block}attn.in_proj_bias": draw(3 * TEXT)}
        found |= draw.linear(f"{block}attn.out_proj", TEXT, TEXT)
        found |= draw.norm(f"{block}ln_1", TEXT) | draw.norm(f"{block}ln_2", TEXT)
        found |= draw.linear(f"{block}mlp.c_fc", 2 * TEXT, TEXT) | draw.linear(f"{block}mlp.c_proj", TEXT, 2 * TEXT)
    found |= draw.norm("ln_final", TEXT)
    return found | {
        "token_embedding.weight": draw(WORDS, TEXT),
        "positional_embedding": draw(CONTEXT, TEXT),
        "image_projection": draw(WIDTH, SHARED),
        "text_projection": draw(TEXT, SHARED),
        "logit_scale": torch.tensor(2.0),
    }


def egovlp(seed: int = 0) -> Tensors:
    draw = Numbers(seed)
    found = visual(draw, began_with_clip=False)
    found |= {
        "textual.embeddings.word_embeddings.weight": draw(WORDS, TEXT),
        "textual.embeddings.position_embeddings.weight": draw(CONTEXT, TEXT),
    }
    found |= draw.norm("textual.embeddings.LayerNorm", TEXT)
    block = "textual.transformer.layer.0."
    for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
        found |= draw.linear(f"{block}attention.{part}", TEXT, TEXT)
    found |= draw.norm(f"{block}sa_layer_norm", TEXT) | draw.norm(f"{block}output_layer_norm", TEXT)
    found |= draw.linear(f"{block}ffn.lin1", 2 * TEXT, TEXT) | draw.linear(f"{block}ffn.lin2", TEXT, 2 * TEXT)
    found |= draw.linear("image_projection.0", SHARED, WIDTH) | draw.linear("text_projection.1", SHARED, TEXT)
    return {key: value.half() for key, value in (found | {"logit_scale": torch.tensor(2.0)}).items()}


def narrator(seed: int = 0) -> Tensors:
    """Four layers, of which every second looks."""
    draw = Numbers(seed)
    found = visual(draw)
    heads, head, queries, positions = 2, 8, 5, 16
    found |= {
        "img_queries": draw(queries, TEXT),
        "img_attn_pool.norm.gamma": 1 + draw(TEXT),
        "img_attn_pool.norm.beta": torch.zeros(TEXT),
        "img_attn_pool.context_norm.gamma": 1 + draw(WIDTH),
        "img_attn_pool.context_norm.beta": torch.zeros(WIDTH),
        "img_attn_pool.to_q.weight": draw(heads * head, TEXT),
        "img_attn_pool.to_kv.weight": draw(2 * head, WIDTH),
        "img_attn_pool.to_out.weight": draw(TEXT, heads * head),
        "img_attn_pool_norm.gamma": 1 + draw(TEXT),
        "img_attn_pool_norm.beta": torch.zeros(TEXT),
    }
    masks = {
        "bias": torch.ones(1, 1, positions, positions, dtype=torch.uint8).tril(),
        "masked_bias": torch.tensor(-1e4),
    }

    def conv(name: str, rows: int, columns: int) -> Tensors:
        return {f"{name}.weight": draw(rows, columns), f"{name}.bias": draw(columns)}

    for layer in range(4):
        block = f"text_decoder.transformer.h.{layer}."
        found |= draw.norm(f"{block}ln_1", TEXT) | draw.norm(f"{block}ln_2", TEXT)
        found |= conv(f"{block}attn.c_attn", TEXT, 3 * TEXT) | conv(f"{block}attn.c_proj", TEXT, TEXT)
        found |= conv(f"{block}mlp.c_fc", TEXT, 4 * TEXT) | conv(f"{block}mlp.c_proj", 4 * TEXT, TEXT)
        found |= {f"{block}attn.{name}": value for name, value in masks.items()}
        if layer % 2 == 0:
            found |= {f"{block}alpha_cattn": torch.tensor(0.3), f"{block}alpha_dense": torch.tensor(-0.2)}
            found |= draw.norm(f"{block}ln_cross_attn", TEXT) | draw.norm(f"{block}ln_2_crossattention", TEXT)
            for name, columns in (("q_attn", TEXT), ("c_attn", 2 * TEXT), ("c_proj", TEXT)):
                found |= conv(f"{block}crossattention.{name}", TEXT, columns)
            found |= conv(f"{block}mlp_crossattention.c_fc", TEXT, 4 * TEXT)
            found |= conv(f"{block}mlp_crossattention.c_proj", 4 * TEXT, TEXT)
            found |= {f"{block}crossattention.{name}": value for name, value in masks.items()}
    found |= draw.norm("text_decoder.transformer.ln_f", TEXT)
    words = draw(WORDS, TEXT)
    return found | {
        "text_decoder.transformer.wte.weight": words,
        "text_decoder.transformer.wpe.weight": draw(positions, TEXT),
        "text_decoder.lm_head.weight": words.clone(),
    }


def classifier(*classes: int, seed: int = 0) -> Tensors:
    draw = Numbers(seed)
    found = visual(draw)
    if len(classes) == 1:
        return found | draw.linear("fc_cls", classes[0], WIDTH)
    for head, count in enumerate(classes):
        found |= draw.linear(f"fc_cls.{head}", count, WIDTH)
    return found


def save(path: Path, tensors: Tensors, prefix: str = "module.") -> Path:
    """As the published trainer saves it: on several devices, with the flags of its run and what its optimizer knew."""
    named = {prefix + key: value for key, value in tensors.items()}
    first = next(iter(named))
    torch.save(
        {
            "epoch": 3,
            "state_dict": named,
            "criterion": {},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 3e-5, "name": first}]},
            "scaler": {"scale": 65536.0},
            "best_acc1": 30.9,
            "args": argparse.Namespace(model="SMALL", clip_length=FRAMES, norm_embed=True),
        },
        path,
    )
    return path
