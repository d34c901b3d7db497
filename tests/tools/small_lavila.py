"""Folders of LaViLa's models at a size for tests, with tokenizers of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.models.lavila import small
from tests.models.lavila.test_rephraser import small_t5, small_tokenizer
from videollm.models.lavila import LavilaImageProcessor, LavilaProcessor, Rephraser

WORDS = ["knife", "bowl", "door", "cup", "box", "lid", "opens", "takes", "lifts", "the", "a", "up", "left"]


def _words(count: int, **special: str) -> PreTrainedTokenizerFast:
    names = [*special.values()]
    vocabulary = [*WORDS, *(f"w{i}" for i in range(99))][: count - len(set(names))] + sorted(set(names))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=names[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def narrator_folder(folder: Path, **options: Any) -> Path:
    end = "<|endoftext|>"
    tokenizer = _words(40, unk_token=end, eos_token=end, bos_token=end, pad_token=end)
    assert tokenizer.eos_token_id == 39
    images = LavilaImageProcessor(size=16, num_frames=3)
    LavilaProcessor(images, tokenizer, "gpt2", max_text_tokens=12).save_pretrained(folder)
    small.narrator(**options).save_pretrained(folder)
    return folder


def dual_encoder_folder(folder: Path) -> Path:
    tokenizer = _words(50, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    images = LavilaImageProcessor(size=16, num_frames=3)
    LavilaProcessor(images, tokenizer, "bert", max_text_tokens=12).save_pretrained(folder)
    small.dual_encoder(small.BERT_TEXT).save_pretrained(folder)
    return folder


def rephraser_folder(folder: Path) -> Path:
    Rephraser(small_t5(), small_tokenizer()).save_pretrained(folder)
    return folder
