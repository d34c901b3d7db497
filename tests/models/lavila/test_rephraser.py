"""The rephraser: a small T5 of random numbers says something, and what it says is cleaned as said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from videollm.errors import ModelNotFoundError
from videollm.models.lavila import Rephraser
from videollm.models.lavila.rephraser import _distinct

SPECIAL = ["<pad>", "</s>", "<unk>"]
WORDS = [*SPECIAL, "paraphrase", ":", "c", "picks", "a", "knife", "takes", "up", "the", "blade", ",", ".", "lifts"]


def small_tokenizer() -> Any:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def small_t5(seed: int = 0) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2,
        relative_attention_num_buckets=8, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def rephraser() -> Rephraser:
    return Rephraser(small_t5(), small_tokenizer())


def test_asked_as_published(rephraser: Rephraser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words and the settings with which the model is asked."""
    asked: dict[str, Any] = {}
    generate = rephraser.model.generate
    monkeypatch.setattr(rephraser.model, "generate", lambda **options: asked.update(options) or generate(**options))
    rephraser.rephrase(["c picks a knife"], max_tokens=14)
    text = rephraser.tokenizer.decode(asked["input_ids"][0])
    assert text.replace(" :", ":") == "paraphrase: c picks a knife </s> </s>"
    assert (asked["num_beams"], asked["num_beam_groups"], asked["diversity_penalty"]) == (20, 20, 0.7)
    assert asked["early_stopping"] is True and asked["do_sample"] is False


def test_candidates_are_distinct_and_batched_is_one_by_one(rephraser: Rephraser) -> None:
    sentences = ["c picks a knife", "the blade", "lifts a knife, c takes up the blade."]
    together = rephraser.rephrase(sentences, count=4, groups=6, max_tokens=14)
    assert together == [rephraser.rephrase([sentence], count=4, groups=6, max_tokens=14)[0] for sentence in sentences]
    for sentence, found in zip(sentences, together, strict=True):
        assert len(set(found)) == len(found) <= 4 and sentence not in found
        assert not any(mark in text for text in found for mark in ".,")
    assert rephraser.rephrase([]) == []
    assert all(len(found) <= 1 for found in rephraser.rephrase(sentences, count=1, groups=1, max_tokens=14))


def test_what_counts_as_another_sentence() -> None:
    said = ["C picks a knife.", "c takes, the knife", "C takes the knife!", "", "...", "c lifts the knife", "c puts it"]
    assert _distinct("c picks a knife", said, 2, punctuation=False) == ["c takes the knife", "c lifts the knife"]
    assert _distinct("c picks a knife", said, 1, punctuation=True) == ["c takes, the knife"]


def test_saved_and_loaded(rephraser: Rephraser, tmp_path: Path) -> None:
    own = Rephraser(rephraser.model, rephraser.tokenizer, prompt="takes : {sentence}")
    own.save_pretrained(tmp_path)
    again = Rephraser.from_pretrained(tmp_path)
    assert again.prompt == own.prompt
    assert again.rephrase(["the blade"], groups=4, max_tokens=14) == own.rephrase(
        ["the blade"], groups=4, max_tokens=14
    )


def test_what_cannot_be_asked(rephraser: Rephraser, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for 1 to 4"):
        rephraser.rephrase(["a knife"], count=5, groups=4)
    with pytest.raises(ModelNotFoundError, match="no rephraser in"):
        Rephraser.from_pretrained(tmp_path / "nothing")
