"""ImageBind's text trunk against the library's CLIP text model, its laws, and its tokens."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from videollm.errors import ModelNotFoundError
from videollm.models.imagebind import (
    ImageBindConfig,
    ImageBindModel,
    ImageBindTextConfig,
    ImageBindTextModel,
    load_text_tokenizer,
    tokenise,
)
from videollm.models.imagebind.modeling_imagebind import ImageBindAttention

SMALL = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "projection_dim": 20,
    "bos_token_id": 58,
    "eos_token_id": 59,
}
IDS = torch.tensor([[58, 3, 4, 5, 6, 7, 59, 0, 0], [58, 9, 59, 0, 0, 0, 0, 0, 0], [58, 8, 7, 6, 5, 4, 3, 2, 59]])


@pytest.fixture(scope="module")
def trunk() -> ImageBindTextModel:
    torch.manual_seed(0)
    return ImageBindTextModel(ImageBindTextConfig(**SMALL, initializer_range=0.3)).eval()


def clip_with_weights_of(trunk: ImageBindTextModel) -> CLIPTextModelWithProjection:
    """The library's CLIP text model, holding the same weights in its own names."""
    clip = CLIPTextModelWithProjection(CLIPTextConfig(**SMALL, hidden_act="gelu", layer_norm_eps=1e-6)).eval()
    theirs = {}
    for name, value in trunk.state_dict().items():
        if name == "log_logit_scale":
            continue
        for ours, other in (
            ("token_embedding.", "text_model.embeddings.token_embedding."),
            ("position_embedding", "text_model.embeddings.position_embedding.weight"),
            ("head_layernorm.", "text_model.final_layer_norm."),
            ("head_projection.", "text_projection."),
            ("blocks.", "text_model.encoder.layers."),
        ):
            if name.startswith(ours):
                name = other + name.removeprefix(ours)
        name = name.replace(".norm_1.", ".layer_norm1.").replace(".norm_2.", ".layer_norm2.")
        if ".attn.in_proj." in name:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                theirs[name.replace(".attn.in_proj.", f".self_attn.{part}_proj.")] = rows
        else:
            theirs[name.replace(".attn.", ".self_attn.")] = value.squeeze(0) if name.endswith("ding.weight") else value
    clip.load_state_dict(theirs)
    return clip


@torch.no_grad()
def test_it_is_the_library_s_clip_text_model(trunk: ImageBindTextModel) -> None:
    theirs = clip_with_weights_of(trunk)(input_ids=IDS).text_embeds
    ours = trunk(IDS)
    torch.testing.assert_close(
        ours, torch.nn.functional.normalize(theirs, dim=-1) * math.exp(trunk.log_logit_scale), atol=1e-5, rtol=1e-5
    )
    assert (ours[0] - ours[2]).norm() > 1


@torch.no_grad()
def test_no_token_sees_what_is_behind_it(trunk: ImageBindTextModel) -> None:
    changed = IDS.clone()
    changed[:, 5:] = 11
    before, after = trunk.tokens(IDS), trunk.tokens(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5] - after[:, 5]).norm() > 0.1
    # One by one: the state of a token is that of the text which ends there.
    for end in range(1, IDS.shape[1] + 1):
        alone = trunk.tokens(IDS[:, :end])[:, -1]
        torch.testing.assert_close(alone, before[:, end - 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_of_any_kind_and_length_changes_nothing(trunk: ImageBindTextModel) -> None:
    embedded = trunk(IDS)
    for padding in (0, 17, 59):
        longer = torch.full((3, 12), padding)
        longer[:, :9] = torch.where(IDS == 0, padding, IDS)
        torch.testing.assert_close(trunk(longer), embedded, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(trunk(IDS[1:2, :3]), embedded[1:2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_have_the_learned_length(trunk: ImageBindTextModel) -> None:
    torch.testing.assert_close(trunk(IDS).norm(dim=-1), torch.full((3,), 1 / 0.07))
    model = ImageBindTextModel(ImageBindTextConfig(**SMALL, initial_logit_scale=300)).eval()
    torch.testing.assert_close(model(IDS).norm(dim=-1), torch.full((3,), 100.0))


def test_what_cannot_be_read_is_refused(trunk: ImageBindTextModel) -> None:
    with pytest.raises(ValueError, match=r"needs its end token \(id 59\)"):
        trunk(torch.tensor([[58, 3, 4], [58, 3, 59]]))
    with pytest.raises(ValueError, match=r"L at most 12, found \(1, 13\)"):
        trunk(torch.full((1, 13), 59))
    with pytest.raises(ValueError, match="causal attention has no learned key"):
        ImageBindAttention(ImageBindTextConfig(**SMALL, add_bias_kv=True), causal=True)


@torch.no_grad()
def test_saved_and_loaded(tmp_path: Path, trunk: ImageBindTextModel) -> None:
    model = ImageBindModel(ImageBindConfig(text_config=ImageBindTextConfig(**SMALL, initial_logit_scale=7))).eval()
    model.save_pretrained(tmp_path)
    loaded = ImageBindModel.from_pretrained(tmp_path)
    assert loaded.audio_model is None and loaded.vision_model is None
    assert torch.equal(loaded.text_model(IDS), model.text_model(IDS))
    trunk.save_pretrained(tmp_path / "alone")
    assert torch.equal(ImageBindTextModel.from_pretrained(tmp_path / "alone")(IDS), trunk(IDS))


def test_every_published_tensor_has_its_place_at_full_size(reference: Path) -> None:
    manifest = json.loads((reference / "video_llama" / "manifest_audio_branch.json").read_text())
    published = manifest["imagebind_unused_modalities"]["text"]
    with torch.device("meta"):
        model = ImageBindTextModel(ImageBindTextConfig())
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    names = (
        ("modality_preprocessors.text.token_embedding.", "token_embedding."),
        ("modality_preprocessors.text.pos_embed", "position_embedding"),
        ("modality_trunks.text.blocks.", "blocks."),
        (".attn.in_proj_", ".attn.in_proj."),
        ("modality_heads.text.proj.0.", "head_layernorm."),
        ("modality_heads.text.proj.1.", "head_projection."),
        ("modality_postprocessors.text.1.", ""),
    )
    expected = {}
    for name, shape in published.items():
        if name == "modality_preprocessors.text.mask":  # a buffer: the causal mask
            continue
        for theirs, other in names:
            name = name.replace(theirs, other)
        expected[name] = tuple(shape)
    assert ours == expected
    buffers = math.prod(published["modality_preprocessors.text.mask"])
    assert model.num_parameters() == sum(math.prod(shape) for shape in published.values()) - buffers == 354_032_641


def small_vocabulary(folder: Path) -> None:
    """A tokenizer in the layout of CLIP's folders: letters, letters that end a word, and a few merges."""
    letters = [chr(i) for i in range(ord("!"), ord("~") + 1)]
    merges = [("d", "o"), ("do", "g</w>"), ("a", "m"), ("am", "p</w>")]
    names = [
        *letters,
        *(f"{c}</w>" for c in letters),
        *("".join(m) for m in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")


def test_texts_become_ids(tmp_path: Path) -> None:
    small_vocabulary(tmp_path)
    tokenizer = load_text_tokenizer(tmp_path)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = tokenise(tokenizer, ["Dog", "a  dog &amp;", ""])
    dog, a, ampersand = tokenizer.convert_tokens_to_ids(["dog</w>", "a</w>", "&</w>"])
    assert ids.tolist() == [[start, dog, end, 0, 0], [start, a, dog, ampersand, end], [start, end, 0, 0, 0]]
    cut = tokenise(tokenizer, ["dog " * 100], context_tokens=7)
    assert cut.tolist() == [[start, *[dog] * 5, end]]
    named = tokenise(tokenizer, ["a <|endoftext|> dog"])[0].tolist()
    assert named.index(end) == len(named) - 1
    assert tokenise(tokenizer, []).shape[0] == 0


def test_the_published_vocabulary_gives_the_published_ids(reference: Path) -> None:
    """The cases are of CLIP's own tokenizer; two of them need ftfy, or are cut without their end token there."""
    tokenizer = load_text_tokenizer(reference / "lavila" / "tokenizers" / "clip_bpe_simple_vocab_16e6.txt.gz")
    cases = json.loads((reference / "lavila" / "golden" / "tokenizers.json").read_text())["clip_bpe"]["cases"]
    compared = 0
    for case in cases:
        if "“" in case["text"]:
            continue
        ours = tokenise(tokenizer, [case["text"]])[0].tolist()
        if case["ids"][-1]:
            assert ours[:-1] == case["ids"][:-1] and ours[-1] == 49407
        else:
            assert ours == case["ids"][: len(ours)] and not any(case["ids"][len(ours) :])
        compared += 1
    assert compared >= 10


_VOCABULARIES = (None, b"", b"text", gzip.compress(b"version\na b\n"))


@pytest.mark.parametrize("content", _VOCABULARIES, ids=("missing", "empty", "text", "short"))
def test_a_vocabulary_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    place = tmp_path
    if content is not None:
        place = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
        place.write_bytes(content)
    with pytest.raises(ModelNotFoundError, match=r"CLIP tokenizer in .*vocab\.json and merges\.txt") as caught:
        load_text_tokenizer(place)
    assert "\n" not in str(caught.value)
