"""The tokenizer of the embedded model: byte-level BPE over lower-cased text, one token a digit."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>", "<video>", "<audio>", "<user>", "<assistant>")
TOOL_TOKENS = ("<call>", "<result>")
"""What opens a call of a tool, and what it gave back; behind the learned vocabulary, which keeps its ids."""


def build_tiny_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """Learn a vocabulary.

    Special tokens are ids 0 to 6, in the order of `SPECIAL_TOKENS`. Text is lower-cased; every digit is a token of its
    own; any string decodes to exactly its lower-cased self.

    Args:
        texts: what the model reads and says.
        vocab_size: at least 263 (special tokens and all bytes), tokens.

    Raises:
        ValueError: for a smaller vocabulary.
    """
    smallest = len(SPECIAL_TOKENS) + 256
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest} (all bytes and special tokens), found {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A digit alone; else a word, or a run of other signs, each with the blank before it.
            pre_tokenizers.Split(Regex(r"\d| ?[^\s\d\w]+| ?[^\W\d]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=["<video>", "<audio>", "<user>", "<assistant>"],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def with_tool_tokens(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer, which also knows `TOOL_TOKENS`."""
    known = list(tokenizer.extra_special_tokens)
    tokenizer.add_special_tokens({"extra_special_tokens": [*known, *(one for one in TOOL_TOKENS if one not in known)]})
    return tokenizer
