"""The published tokenisation, beside sentencepiece itself."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from videollm.errors import ModelNotFoundError
from videollm.models.video_llama.llama_tokenizer import PLACEHOLDERS, as_published, llama_tokenizer

KEPT = Path(__file__).parents[2] / "parity" / "data" / "video_llama" / "golden"
FILE = KEPT / "tokenizer.model"


@pytest.fixture(scope="module")
def tokenizer():
    return llama_tokenizer(FILE)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    words = " ".join(re for turns in json.loads((KEPT / "goldens.json").read_text())["chat"].values()
                     for turn in turns for re in (turn["prompt"], turn["text"]))  # fmt: skip
    for special in ("<s>", "</s>", "<unk>", *PLACEHOLDERS):
        words = words.replace(special, "")
    starts = [rng.randrange(len(words)) for _ in range(300)]
    letters = ["".join(rng.choice(words) for _ in range(12)) for _ in range(100)]
    return (
        [words[start : start + rng.randrange(1, 60)] for start in starts]
        + letters
        + ["", " ", "  a ", "\t\n é 中文 😀"]
    )


def test_each_stretch_is_tokenised_as_sentencepiece_does(tokenizer, texts) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    truth = sentencepiece.SentencePieceProcessor(str(FILE))
    for text in texts:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == truth.encode(text), text
    words = [text for text in texts if text.strip()][:20]
    joined = tokenizer("<s>" + "</s>".join(words), add_special_tokens=False)["input_ids"]
    assert joined == [1, *(token for word in words for token in (*truth.encode(word), 2))][:-1]


def test_placeholders_swallow_the_blanks_beside_them(tokenizer) -> None:
    image, sound = tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
    assert (image, sound) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    assert ids("a  <ImageHere>  b<AudioHere>") == [*ids("a"), image, *ids("b"), sound]
    assert ids("a </s> b") == [*ids("a "), 2, *ids(" b")]


def test_saved_loaded_and_adapted_again(tokenizer, texts, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for other in (loaded, as_published(loaded)):
        assert len(other) == len(tokenizer) and other.pad_token_id == 0
        assert all(other(text)["input_ids"] == tokenizer(text)["input_ids"] for text in [*texts, "a<s>b <ImageHere> c"])


def test_the_library_s_own_llama_tokenizer_is_adapted(tokenizer, texts) -> None:
    """It would put a word boundary before the first stretch only."""
    from transformers import LlamaTokenizer

    stored = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    theirs = LlamaTokenizer(vocab=stored["vocab"], merges=[tuple(merge) for merge in stored["merges"]])
    text = "a</s>b"
    assert theirs(text)["input_ids"] != tokenizer(text)["input_ids"]
    adapted = as_published(theirs)
    assert all(adapted(text)["input_ids"] == tokenizer(text)["input_ids"] for text in [*texts, text])


def test_tokenizers_of_another_kind_stay(tokenizer) -> None:
    from videollm.models.video_llama.tiny_tokenizer import build_tiny_tokenizer

    tiny = build_tiny_tokenizer(["a ball"], 270)
    assert as_published(tiny) is tiny


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "unigram"])
def test_other_files_are_refused(damage: str, tmp_path: Path) -> None:
    file, data = tmp_path / "tokenizer.model", FILE.read_bytes()
    if damage == "unigram":  # the kind of model stands in field 3 of the trainer's settings
        assert data.count(b"\x18\x02") >= 1
        data = data.replace(b"\x18\x02", b"\x18\x01")
    content = {"empty": b"", "cut": data[: len(data) // 2], "text": b"<html>not found</html>", "unigram": data}
    if damage != "missing":
        file.write_bytes(content[damage])
    with pytest.raises(ModelNotFoundError, match=r"give the tokenizer\.model of a LLaMA") as error:
        llama_tokenizer(file)
    assert "\n" not in str(error.value)
