"""The published Video-LLaMA bundle in miniature: the same files, names and layouts, with seeded random numbers.

The names are written out here once more, on purpose: this file must not learn them from the key map it tests.

    python -m tests.convert.miniature DIR        # makes the bundle in DIR; convert it with --config DIR/shape.json
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TEXTS = [
    "You are able to understand the visual content that the user provides. Follow the instructions carefully.",
    "The video contains 8 frames sampled at 0.0, 0.5, 1.0, 1.5, 2.0 seconds. What is in the video?",
    "### Human: what do you see? ### Assistant: a red circle moves to the left while a loud beep is heard.",
    "Close your eyes, open your ears and you imagine only based on the sound that: the quick brown fox jumps.",
]

EYE, EYE_DEPTH, EYE_PATCHES = 32, 2, 4
QFORMER, QFORMER_DEPTH, QUERIES, VIDEO_QUERIES, AUDIO_QUERIES = 32, 2, 4, 6, 3
EAR, EAR_DEPTH, SHARED = 32, 2, 24
DECODER, DECODER_DEPTH = 48, 2

SHAPE: dict[str, Any] = {
    "vision_config": {
        "hidden_size": EYE,
        "intermediate_size": 2 * EYE,
        "num_hidden_layers": EYE_DEPTH,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "qformer_config": {
        "hidden_size": QFORMER,
        "intermediate_size": 2 * QFORMER,
        "num_hidden_layers": QFORMER_DEPTH,
        "num_attention_heads": 2,
    },
    "audio_config": {
        "hidden_size": EAR,
        "intermediate_size": 2 * EAR,
        "num_hidden_layers": EAR_DEPTH,
        "num_attention_heads": 2,
        "projection_dim": SHARED,
    },
}
SHAPE["video_qformer_config"] = SHAPE["qformer_config"] | {"cross_attention_frequency": 1}
SHAPE["audio_qformer_config"] = SHAPE["qformer_config"] | {"cross_attention_frequency": 1}
"""What ``--config`` is given: the shape that the files do not tell."""

_TRUNK = {"hidden_size": EAR, "intermediate_size": 2 * EAR, "num_hidden_layers": EAR_DEPTH, "num_attention_heads": 2}
IMAGEBIND_SHAPE: dict[str, Any] = {
    "audio_config": SHAPE["audio_config"],
    "vision_config": {**_TRUNK, "image_size": 28, "patch_size": 14, "projection_dim": SHARED},
    "text_config": {**_TRUNK, "vocab_size": 60, "max_position_embeddings": 12, "projection_dim": SHARED},
}
"""The same for ``convert imagebind``."""


class Numbers:
    """Seeded random tensors, wide enough that answers differ from clip to clip."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator) * 0.2

    def linear(self, name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": self(rows, columns), f"{name}.bias": self(rows)}

    def norm(self, name: str, width: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + self(width), f"{name}.bias": self(width)}


def eva_vit(numbers: Numbers) -> dict[str, torch.Tensor]:
    """One block more than the model runs, and what stands behind it."""
    file = {"cls_token": numbers(1, 1, EYE), "pos_embed": numbers(1, 1 + EYE_PATCHES, EYE)}
    file |= {"patch_embed.proj.weight": numbers(EYE, 3, 14, 14), "patch_embed.proj.bias": numbers(EYE)}
    for block in range(EYE_DEPTH + 1):
        name = f"blocks.{block}"
        file |= numbers.norm(f"{name}.norm1", EYE) | numbers.norm(f"{name}.norm2", EYE)
        file |= {f"{name}.attn.q_bias": numbers(EYE), f"{name}.attn.v_bias": numbers(EYE)}
        file |= {f"{name}.attn.qkv.weight": numbers(3 * EYE, EYE)} | numbers.linear(f"{name}.attn.proj", EYE, EYE)
        file |= numbers.linear(f"{name}.mlp.fc1", 2 * EYE, EYE) | numbers.linear(f"{name}.mlp.fc2", EYE, 2 * EYE)
    file |= numbers.norm("norm", EYE) | numbers.linear("head", 8, EYE)
    return {key: value.half() for key, value in file.items()}


def qformer(numbers: Numbers, name: str, seen: int, every: int) -> dict[str, torch.Tensor]:
    file = {f"{name}.bert.embeddings.position_ids": torch.arange(512)[None]}
    file |= numbers.norm(f"{name}.bert.embeddings.LayerNorm", QFORMER)
    for layer in range(QFORMER_DEPTH):
        here = f"{name}.bert.encoder.layer.{layer}"
        attentions = {"attention": QFORMER} | ({"crossattention": seen} if layer % every == 0 else {})
        for attention, width in attentions.items():
            file |= numbers.linear(f"{here}.{attention}.self.query", QFORMER, QFORMER)
            file |= numbers.linear(f"{here}.{attention}.self.key", QFORMER, width)
            file |= numbers.linear(f"{here}.{attention}.self.value", QFORMER, width)
            file |= numbers.linear(f"{here}.{attention}.output.dense", QFORMER, QFORMER)
            file |= numbers.norm(f"{here}.{attention}.output.LayerNorm", QFORMER)
        file |= numbers.linear(f"{here}.intermediate_query.dense", 2 * QFORMER, QFORMER)
        file |= numbers.linear(f"{here}.output_query.dense", QFORMER, 2 * QFORMER)
        file |= numbers.norm(f"{here}.output_query.LayerNorm", QFORMER)
    return file


def blip2(numbers: Numbers) -> dict[str, torch.Tensor]:
    file = {"query_tokens": numbers(1, QUERIES, QFORMER)} | numbers.norm("ln_vision", EYE)
    return file | qformer(numbers, "Qformer", EYE, every=2) | numbers.linear("t5_proj", 16, QFORMER)


def imagebind(numbers: Numbers) -> dict[str, torch.Tensor]:
    file: dict[str, torch.Tensor] = {}
    stems = {
        "audio": {"rgbt_stem.proj.weight": (EAR, 1, 16, 16)},
        "vision": {"rgbt_stem.proj.1.weight": (EAR, 3, 2, 14, 14)},
        "text": {"token_embedding.weight": (60, EAR)},
        "depth": {"depth_stem.proj.weight": (EAR, 1, 16, 16)},
        "thermal": {"rgbt_stem.proj.weight": (EAR, 1, 16, 16)},
        "imu": {"imu_stem.proj.weight": (EAR, 48)},
    }
    positions = {"audio": 229, "vision": 5, "depth": 5, "thermal": 5}
    for sense, stem in stems.items():
        before, trunk, head = f"modality_preprocessors.{sense}", f"modality_trunks.{sense}", f"modality_heads.{sense}"
        file |= {f"{before}.{name}": numbers(*shape) for name, shape in stem.items()}
        if sense == "text":
            file |= {f"{before}.pos_embed": numbers(1, 12, EAR), f"{before}.mask": torch.zeros(12, 12)}
            file |= numbers.norm(f"{head}.proj.0", EAR) | {f"{head}.proj.1.weight": numbers(SHARED, EAR)}
        else:
            file[f"{before}.cls_token"] = numbers(1, 1, EAR)
            file |= numbers.norm(f"{head}.0", EAR) | {f"{head}.2.weight": numbers(SHARED, EAR)}
        if sense in positions:
            file[f"{before}.pos_embedding_helper.pos_embed"] = numbers(1, positions[sense], EAR)
        if sense == "imu":
            file[f"{before}.pos_embed"] = numbers(1, 9, EAR)
        if sense in ("audio", "thermal"):
            file |= numbers.norm(f"{before}.rgbt_stem.norm_layer", EAR)
        if sense == "vision":
            file |= numbers.norm(f"{trunk}.pre_transformer_layer.0", EAR)
        else:
            scale = {"audio": 20.0, "text": 14.2857}.get(sense, 5.0)
            file[f"modality_postprocessors.{sense}.1.log_logit_scale"] = torch.tensor(scale).log()
        for block in range(EAR_DEPTH):
            name = f"{trunk}.blocks.{block}"
            file |= {
                f"{name}.attn.in_proj_weight": numbers(3 * EAR, EAR),
                f"{name}.attn.in_proj_bias": numbers(3 * EAR),
            }
            if sense not in ("vision", "text"):
                file |= {f"{name}.attn.bias_k": numbers(1, 1, EAR), f"{name}.attn.bias_v": numbers(1, 1, EAR)}
            file |= numbers.linear(f"{name}.attn.out_proj", EAR, EAR)
            file |= numbers.norm(f"{name}.norm_1", EAR) | numbers.norm(f"{name}.norm_2", EAR)
            file |= numbers.linear(f"{name}.mlp.fc1", 2 * EAR, EAR) | numbers.linear(f"{name}.mlp.fc2", EAR, 2 * EAR)
    return file


def _buffers(numbers: Numbers, audio: bool) -> dict[str, torch.Tensor]:
    """What the published trainer saved along with what it had trained."""
    names = ["Qformer", "video_Qformer"]
    file = {f"{name}.bert.embeddings.position_ids": torch.arange(512)[None] for name in names}
    for layer in range(DECODER_DEPTH):
        file[f"llama_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = numbers(6)
    if audio:
        file["audio_encoder.modality_preprocessors.text.mask"] = torch.zeros(12, 12)
        for sense in ("audio", "depth", "thermal", "imu"):
            file[f"audio_encoder.modality_postprocessors.{sense}.1.log_logit_scale"] = torch.tensor(3.0)
    return file


def video_branch(numbers: Numbers, decoder: int = DECODER) -> dict[str, torch.Tensor]:
    file = {"video_query_tokens": numbers(1, VIDEO_QUERIES, QFORMER)}
    file["video_frame_position_embedding.weight"] = numbers(32, QFORMER)
    file |= qformer(numbers, "video_Qformer", QFORMER, every=1) | numbers.linear("llama_proj", decoder, QFORMER)
    return _buffers(numbers, audio=False) | file


def audio_branch(numbers: Numbers, decoder: int = DECODER) -> dict[str, torch.Tensor]:
    file = {"audio_query_tokens": numbers(1, AUDIO_QUERIES, QFORMER)}
    file["audio_position_embedding.weight"] = numbers(8, SHARED)
    file |= qformer(numbers, "audio_Qformer", SHARED, every=1) | numbers.linear("audio_llama_proj", decoder, QFORMER)
    return _buffers(numbers, audio=True) | file


def checkpoint(model: dict[str, torch.Tensor], model_type: str) -> dict[str, Any]:
    """As the published runner saves: the weights among the state of the optimiser and the settings of the run."""
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    config = {"run": {"task": "video_text_pretrain", "amp": True}, "model": {"model_type": model_type}}
    return {"model": model, "optimizer": optimizer, "config": config, "scaler": {"scale": 65536.0}, "epoch": 3}


def tokenizer_model(vocabulary: int = 380) -> bytes:
    """A sentencepiece model of LLaMA's kind."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=out,
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return out.getvalue()


def write_decoder(folder: Path, numbers: Numbers, vocabulary: int, width: int, *, llama_2: bool) -> None:
    """A decoder's folder: two files of weights and their index, as they were published then."""
    folder.mkdir(parents=True)
    embeddings = {"model.embed_tokens.weight": numbers(vocabulary, width)}
    rest = {"model.norm.weight": 1 + numbers(width), "lm_head.weight": numbers(vocabulary, width)}
    for layer in range(DECODER_DEPTH):
        name = f"model.layers.{layer}"
        for part in "qkvo":
            rest[f"{name}.self_attn.{part}_proj.weight"] = numbers(width, width)
        rest[f"{name}.self_attn.rotary_emb.inv_freq"] = numbers(6)
        rest[f"{name}.mlp.gate_proj.weight"] = numbers(2 * width, width)
        rest[f"{name}.mlp.up_proj.weight"] = numbers(2 * width, width)
        rest[f"{name}.mlp.down_proj.weight"] = numbers(width, 2 * width)
        rest[f"{name}.input_layernorm.weight"] = 1 + numbers(width)
        rest[f"{name}.post_attention_layernorm.weight"] = 1 + numbers(width)
    weight_map = {}
    for number, part in enumerate((embeddings, rest), 1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: value.half() for key, value in part.items()}, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": DECODER_DEPTH,
        "num_attention_heads": 4,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5 if llama_2 else 1e-6,
        "torch_dtype": "float16",
        # As in the first conversions of LLaMA, whose ids are not those of their tokenizer.
        **({} if llama_2 else {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}),
    }
    (folder / "config.json").write_text(json.dumps(config))


def make_miniature(folder: Path, *, llama_2: bool = True, width: int = DECODER, seed: int = 0) -> list[Path]:
    """Write the bundle.

    Args:
        folder: is made; ``shape.json`` in it is what ``--config`` needs.
        llama_2: names and prompts of the Llama-2-chat bundle; otherwise of the Vicuna files.
        width: of the decoder.
        seed: of the numbers.

    Returns:
        the files and the folder of the decoder, as they would be given to ``videollm convert video-llama``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = Numbers(seed)
    names = (
        ("VL_LLaMA_2_7B_Finetuned.pth", "AL_LLaMA_2_7B_Finetuned.pth", "llama-2-7b-chat-hf", "pretrain_llama_v2")
        if llama_2
        else ("finetune-vicuna7b-v2.pth", "finetune_vicuna7b_audiobranch.pth", "vicuna-7b-v0", "pretrain_vicuna")
    )
    torch.save(eva_vit(numbers), folder / "eva_vit_g.pth")
    # Of the format before 2020, which cannot be mapped into memory.
    torch.save(
        {"model": blip2(numbers)}, folder / "blip2_pretrained_flant5xxl.pth", _use_new_zipfile_serialization=False
    )
    torch.save(imagebind(numbers), folder / "imagebind_huge.pth")
    torch.save(checkpoint(video_branch(numbers, width), names[3]), folder / names[0])
    torch.save(checkpoint(audio_branch(numbers, width), names[3]), folder / names[1])
    tokenizer = tokenizer_model()
    vocabulary = 380
    write_decoder(folder / names[2], numbers, vocabulary, width, llama_2=llama_2)
    (folder / names[2] / "tokenizer.model").write_bytes(tokenizer)
    (folder / "shape.json").write_text(json.dumps(SHAPE))
    return files_of(folder)


def convert_miniature(folder: Path, *, llama_2: bool = True, seed: int = 0) -> Path:
    """Write the bundle and convert it.

    Args:
        folder: of the bundle, of the model, and of the checksums, which the user's cache must not know.
        llama_2: see `make_miniature`.
        seed: see `make_miniature`.

    Returns:
        the folder of the model, as ``videollm chat --model`` and ``videollm doctor`` take it.
    """
    from videollm.convert.video_llama import convert

    bundle = folder / "published"
    files = make_miniature(bundle, llama_2=llama_2, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEOLLM_CACHE", str(folder / "cache"))
        return convert(files, folder / "model", config=bundle / "shape.json", say=lambda line: None)


def files_of(folder: Path) -> list[Path]:
    """What a bundle holds, apart from its shape."""
    return [path for path in sorted(folder.iterdir()) if path.name != "shape.json"]


if __name__ == "__main__":
    make_miniature(Path(sys.argv[1]))
