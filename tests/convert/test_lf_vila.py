"""LF-VILA's checkpoints to folders: each kind, whole or not at all; its beginning from Swin and BERT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel
from transformers.models.bert.tokenization_bert import BertTokenizer

from tests.models.lf_vila.small_lf_vila import TEXT, VIDEO, write_vocabulary
from videollm.cli.main import main
from videollm.convert.lf_vila import MODELS, convert, recognise, resize_windows, shape_of
from videollm.errors import ConversionError
from videollm.models.lf_vila import (
    LfVilaConfig,
    LfVilaForPreTraining,
    LfVilaImageProcessor,
    LfVilaProcessor,
    LfVilaVideoConfig,
    LfVilaVideoEncoder,
)

WIDTH, LETTERS = TEXT["hidden_size"], 60
SHAPE = {
    "video_config": {"image_size": [48, 80], "local_window": 4},
    "text_config": {"num_attention_heads": 4},
    "sentence_layers": 1,
    "paragraph_layers": 1,
    "num_clips": 4,
    "max_sentence_tokens": 12,
}


def published(kind: str, stage: int = 2) -> dict[str, torch.Tensor]:
    """The published names are written out once more, on purpose: not learned from the key map that is tested."""
    generator = torch.Generator().manual_seed(0)
    made: dict[str, torch.Tensor] = {}

    def put(name: str, *size: int) -> None:
        made[name] = torch.randn(size, generator=generator) / 4

    def linear(name: str, out: int, wide: int, bias: bool = True) -> None:
        put(f"{name}.weight", out, wide)
        if bias:
            put(f"{name}.bias", out)

    def norm(name: str, wide: int) -> None:
        put(f"{name}.weight", wide)
        put(f"{name}.bias", wide)

    put("video_encoder.patch_embed.proj.weight", 8, 3, 1, 2, 2)
    put("video_encoder.patch_embed.proj.bias", 8)
    norm("video_encoder.patch_embed.norm", 8)
    wide = 8
    for group, (depth, heads, window) in enumerate(
        zip(VIDEO["depths"], VIDEO["num_heads"], VIDEO["window_sizes"], strict=True)
    ):
        for block in range(depth):
            name = f"video_encoder.layers.{group}.blocks.{block}"
            norm(f"{name}.norm1", wide)
            norm(f"{name}.norm2", wide)
            put(f"{name}.attn.relative_position_bias_table", (2 * window[0] - 1) * 45, heads)
            made[f"{name}.attn.relative_position_index"] = torch.zeros(
                window[0] * 15, window[0] * 15, dtype=torch.int64
            )
            linear(f"{name}.attn.qkv", 3 * wide, wide)
            linear(f"{name}.attn.proj", wide, wide)
            linear(f"{name}.mlp.fc1", 4 * wide, wide)
            linear(f"{name}.mlp.fc2", wide, 4 * wide)
        if group in VIDEO["merge_after"]:
            linear(f"video_encoder.layers.{group}.downsample.reduction", 2 * wide, 4 * wide, bias=False)
            norm(f"video_encoder.layers.{group}.downsample.norm", 4 * wide)
            wide *= 2
    norm("video_encoder.norm", wide)
    norm("video_encoder.norm_local", wide)
    # The tap is before the third group: what is 32 wide there skips one merge.
    linear("video_encoder.local_feat_proj.reduction", wide, 128, bias=False)
    norm("video_encoder.local_feat_proj.norm", 128)

    if kind == "video_classification":
        linear("video_global_proj", WIDTH, WIDTH)
        linear("video_frame_proj", WIDTH, WIDTH)
        linear("classifier", 7, WIDTH)
        return made

    bert = "text_encoder.bert"
    put(f"{bert}.embeddings.word_embeddings.weight", LETTERS, WIDTH)
    put(f"{bert}.embeddings.position_embeddings.weight", 64, WIDTH)
    put(f"{bert}.embeddings.token_type_embeddings.weight", 2, WIDTH)
    norm(f"{bert}.embeddings.LayerNorm", WIDTH)
    made[f"{bert}.embeddings.position_ids"] = torch.arange(64)[None]
    for layer in range(2 if kind == "retrieval" or stage == 1 else 4):
        name = f"{bert}.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
        linear(f"{name}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{name}.attention.output.LayerNorm", WIDTH)
        linear(f"{name}.intermediate.dense", 96, WIDTH)
        linear(f"{name}.output.dense", WIDTH, 96)
        norm(f"{name}.output.LayerNorm", WIDTH)
    linear(f"{bert}.pooler.dense", WIDTH, WIDTH)
    put("sent_embedding.position_embeddings.weight", 64, WIDTH)
    put("sent_embedding.segment_embeddings.weight", 8, WIDTH)
    norm("sent_embedding.norm", WIDTH)
    made["sent_embedding.position_ids"] = torch.arange(64)[None]

    if kind in ("pretraining", "retrieval"):
        heads = "text_encoder.cls.predictions"
        linear(f"{heads}.transform.dense", WIDTH, WIDTH)
        norm(f"{heads}.transform.LayerNorm", WIDTH)
        linear(f"{heads}.decoder", LETTERS, WIDTH)
        made[f"{heads}.bias"] = made[f"{heads}.decoder.bias"]
        linear("text_encoder.seq_relationship", 2, WIDTH)
        for reach in ("local", "global") if kind == "pretraining" else ("global",):
            linear(f"video_{reach}_proj", WIDTH, WIDTH)
            linear(f"text_{reach}_proj", WIDTH, WIDTH)
    if kind == "question_answering":
        linear("text_encoder.classifier", 5, WIDTH)
    if kind == "multiple_choice":
        linear("text_encoder.classifier", 1, WIDTH)
        linear("text_encoder.span_classifier", 2, WIDTH)
    if kind != "retrieval" and stage == 2:
        put("video_token_pos.s_pos_embed", 1, 1, 6, WIDTH)
        put("video_token_pos.t_pos_embed", 1, 16, 1, WIDTH)
        norm("video_token_pos.norm", WIDTH)
    return made


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., list[str]]:
    """A function that writes a checkpoint, its shape and a vocabulary, and says what the verb is given."""

    def write(tensors: Any, *more: str) -> list[str]:
        torch.save(tensors, tmp_path / "checkpoint.pth")
        (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
        write_vocabulary(tmp_path)
        files = [str(tmp_path / "checkpoint.pth"), str(tmp_path / "vocab.txt")]
        return [
            "convert",
            "lf-vila",
            *files,
            "--config",
            str(tmp_path / "shape.json"),
            "--out",
            str(tmp_path / "model"),
            *more,
        ]

    return write


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind(
    kind: str, given: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = published(kind)
    assert recognise(tensors) == kind
    assert main(given({"model": tensors, "optimizer": {"step": 3}})) == 0
    assert "done: " in capsys.readouterr().out
    model, report = MODELS[kind].from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert model.config.as_published and model.config.local_features == "final"
    found = model.state_dict()
    block = "blocks.1.attn.relative_position_bias_table"
    assert torch.equal(found[f"video_encoder.groups.2.{block}"], tensors[f"video_encoder.layers.2.{block}"])
    if kind == "video_classification":
        assert model.config.num_answers == 7
        assert isinstance(LfVilaImageProcessor.from_pretrained(tmp_path / "model"), LfVilaImageProcessor)
        return
    assert torch.equal(
        found["text_encoder.bridge.segment_embeddings.weight"], tensors["sent_embedding.segment_embeddings.weight"]
    )
    processor = LfVilaProcessor.from_pretrained(tmp_path / "model")
    assert processor.max_sentences == (4 if kind in ("pretraining", "retrieval") else 8)
    assert processor(paragraphs=[["a red circle"]])["attention_mask"].sum() == 5


def test_the_first_stage_under_module(given: Callable[..., list[str]], tmp_path: Path) -> None:
    tensors = {f"module.{key}": value for key, value in published("pretraining", stage=1).items()}
    assert main(given(tensors)) == 0
    model = LfVilaForPreTraining.from_pretrained(tmp_path / "model")
    assert model.config.cross_layers == 0 and model.video_positions is None
    report = json.loads((tmp_path / "model" / "conversion.json").read_text())
    assert report["kind"] == "pretraining"
    assert "the same as text_encoder.cls.predictions.bias" in report["sources"][0]["dropped"]


def _without(key: str) -> Any:
    return {name: value for name, value in published("retrieval").items() if name != key}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (_without("video_encoder.norm.bias"), "nothing fills 1 parameter of the model: video_encoder.norm.bias"),
        (
            published("retrieval") | {"video_encoder.extra.weight": torch.zeros(1)},
            "has 1 key that no part of the model",
        ),
        (published("retrieval") | {"video_global_proj.weight": torch.zeros(64, 32)}, "has 1 key of another shape"),
        ({"cls_token": torch.zeros(1)}, "is no file of LF-VILA"),
        (
            {"layers.0.blocks.0.attn.q": torch.ones(1), "patch_embed.proj.weight": torch.ones(1)},
            "give the folder of BERT",
        ),
    ],
)
def test_one_line_and_nothing_left(
    tensors: Any, message: str, given: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(tensors)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "checkpoint.pth", "shape.json", "vocab.txt",
    ]  # fmt: skip


def test_the_tokenizer_is_wanted(given: Callable[..., list[str]], tmp_path: Path) -> None:
    given(published("retrieval"))
    words = {"config": tmp_path / "shape.json", "say": lambda line: None}
    with pytest.raises(ConversionError, match="tokenizer is not to be had from the hub"):
        convert([tmp_path / "checkpoint.pth"], tmp_path / "model", **words)
    with pytest.raises(ConversionError, match=r"LF-VILA is one file of weights .* found 2 and 0"):
        convert([tmp_path / "checkpoint.pth"] * 2, tmp_path / "model", **words)
    (tmp_path / "vocab.txt").write_text("\n".join(f"word{n}" for n in range(80)))
    with pytest.raises(ConversionError, match=r"the tokenizer has \d+ words, the model 60"):
        convert([tmp_path / "checkpoint.pth", tmp_path / "vocab.txt"], tmp_path / "model", **words)
    assert not (tmp_path / "model").exists()


def test_what_the_shapes_show() -> None:
    shapes = {key: tuple(value.shape) for key, value in published("question_answering").items()}
    seen = shape_of("question_answering", shapes)
    assert seen["num_answers"] == 5 and seen["num_frames"] == 16 and seen["text_config"]["num_hidden_layers"] == 4
    for name in ("depths", "num_heads", "window_sizes", "merge_after", "embed_dim", "patch_size"):
        assert seen["video_config"][name] == VIDEO[name]


def swin() -> dict[str, torch.Tensor]:
    """A Swin transformer for images with the blocks and merges of the small video encoder."""
    encoder = LfVilaVideoEncoder(LfVilaVideoConfig(**VIDEO)).state_dict()
    made = {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}
    for name, value in encoder.items():
        if name.startswith("local_"):
            continue
        name = name.replace("groups.", "layers.").replace(".merge.", ".downsample.")
        if name.endswith("bias_table"):
            value = torch.randn(7 * 7, value.shape[1], generator=torch.Generator().manual_seed(1))
            made[name.replace("bias_table", "index")] = torch.zeros(16, 16, dtype=torch.int64)
        made[name] = value[:, :, 0, :1, :1] if name == "patch_embed.proj.weight" else value
    return made


def test_the_beginning(given: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**TEXT))
    bert.save_pretrained(tmp_path / "bert")
    BertTokenizer(vocab=str(write_vocabulary(tmp_path / "bert")), do_lower_case=True).save_pretrained(tmp_path / "bert")
    source = swin()
    words = given({"model": source})
    shape = {**SHAPE, "video_config": VIDEO}
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    words[3] = str(tmp_path / "bert")
    assert main(words) == 0
    assert "parameters begin at random" in capsys.readouterr().out
    model = LfVilaForPreTraining.from_pretrained(tmp_path / "model")
    assert model.config.text_config.num_hidden_layers == 2 and not model.config.as_published
    found = model.state_dict()
    kernel = source["patch_embed.proj.weight"]
    for row in range(2):
        for column in range(2):
            torch.testing.assert_close(
                found["video_encoder.patch_embed.proj.weight"][:, :, 0, row, column], kernel[..., 0, 0] / 4
            )
    table = found["video_encoder.groups.1.blocks.0.attn.relative_position_bias_table"].view(7, 45, 2)
    assert torch.equal(table[0], table[6])  # no offset in time is preferred
    assert torch.equal(found["video_encoder.local_norm.weight"], source["norm.weight"])
    words_first = bert.state_dict()["embeddings.position_embeddings.weight"]
    assert torch.equal(found["text_encoder.bridge.position_embeddings.weight"], words_first)
    assert torch.equal(found["text_encoder.bert.embeddings.position_embeddings.weight"], words_first)
    LfVilaProcessor.from_pretrained(tmp_path / "model")

    (tmp_path / "shape.json").write_text(json.dumps({**shape, "video_config": {**VIDEO, "depths": [1, 1, 2, 2]}}))
    words[words.index("--out") + 1] = str(tmp_path / "other")
    assert main(words) == 2
    assert "7 blocks and 3 merges, the video encoder 6 and 3" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_windows_of_another_length() -> None:
    """More frames: tables of the same model with longer windows, the rest untouched."""
    config = LfVilaVideoConfig(**VIDEO)
    longer = [[2 * window[0], *window[1:]] for window in VIDEO["window_sizes"]]
    state = LfVilaVideoEncoder(config).state_dict()
    resized = resize_windows(state, VIDEO["window_sizes"], longer)
    config = LfVilaVideoConfig(**(VIDEO | {"window_sizes": longer, "local_window": 2 * VIDEO["local_window"]}))
    LfVilaVideoEncoder(config).load_state_dict(resized, strict=True)
    assert all(resized[key] is value for key, value in state.items() if "bias_table" not in key)
    with pytest.raises(ConversionError, match="in time only"):
        resize_windows(state, VIDEO["window_sizes"], [[2, 3, 3]] * 4)


def test_a_model_that_follows_the_default_shape_is_recognised() -> None:
    with torch.device("meta"):
        model = LfVilaForPreTraining(LfVilaConfig())
    assert recognise(model.state_dict()) is None  # ours is not a published one
