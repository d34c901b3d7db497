"""The tokenizer of the embedded model: exact round trips, single digits, special tokens that words cannot fake."""

from __future__ import annotations

import copy

import pytest

from videollm.models.video_llama.tiny_tokenizer import (
    SPECIAL_TOKENS,
    TOOL_TOKENS,
    build_tiny_tokenizer,
    with_tool_tokens,
)


@pytest.mark.parametrize(
    "text",
    [
        "at 2.5 s.",
        "a red ball moves left at 2.5 s.",
        "12.75 s, 3 balls; 1 2 3",
        " leading and trailing ",
        "two  spaces\n\na line\ttab",
        "größe, 中文, 🙂 and é",
        "don't _under_score (brackets) [x] ###",
        "",
        "<eos><video> <user>",
    ],
)
def test_round_trip(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text.lower()
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_digits_are_single_and_words_lower_case(tokenizer) -> None:
    tokens = tokenizer.tokenize("At 1250 s: RED")
    assert [token for token in tokens if token.isdigit()] == ["1", "2", "5", "0"]
    assert tokenizer("RED ball")["input_ids"] == tokenizer("red BALL")["input_ids"]
    assert len(tokenizer("a red ball moves left")["input_ids"]) == 5


def test_special_tokens_come_first(tokenizer) -> None:
    assert tuple(tokenizer.convert_ids_to_tokens(range(7))) == SPECIAL_TOKENS
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert tokenizer.decode([0, 5, 3, 3, 6, *tokenizer("yes")["input_ids"], 1], skip_special_tokens=True) == "yes"


def test_saved_and_loaded(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    text = "A red ball at 2.5 s. <eos>"
    for split in (True, False):
        before, after = (each(text, split_special_tokens=split)["input_ids"] for each in (tokenizer, loaded))
        assert before == after
    assert loaded.pad_token_id == 2


def test_a_vocabulary_without_all_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 263"):
        build_tiny_tokenizer(["text"], 262)


def test_tokens_for_tools_stand_behind_the_vocabulary_and_words_cannot_fake_them(tokenizer) -> None:
    known = copy.deepcopy(tokenizer)
    before = known.get_vocab()
    grown = with_tool_tokens(with_tool_tokens(known))
    assert [grown.convert_tokens_to_ids(token) for token in TOOL_TOKENS] == [len(before), len(before) + 1]
    assert {token: grown.get_vocab()[token] for token in before} == before and len(grown) == len(before) + 2
    ids = grown("<call>look 0:01", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert max(ids) < len(before) and grown.decode(ids) == "<call>look 0:01"
    assert grown("<call>", add_special_tokens=False)["input_ids"] == [len(before)]
