"""CLIP's tokens for ImageBind's text trunk, by the library's tokenizer.

The vocabulary is not part of this package. It is in any CLIP folder of the hub (openai/clip-vit-large-patch14:
vocab.json and merges.txt, or tokenizer.json; MIT licence), and beside the published code of CLIP and ImageBind as one
file, bpe_simple_vocab_16e6.txt.gz. Either will do.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import ModelNotFoundError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

PUBLISHED_FILE = "bpe_simple_vocab_16e6.txt.gz"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_VOCABULARY_TOKENS = 49408
_WHERE = (
    f"give a folder with CLIP's tokenizer.json, or its vocab.json and merges.txt (openai/clip-vit-large-patch14 on the "
    f"hub), or the file {PUBLISHED_FILE} of the CLIP or ImageBind code"
)


def load_text_tokenizer(place: str | Path) -> CLIPTokenizer:
    """The tokenizer of the text trunk.

    Args:
        place: a folder with CLIP's files, or the file ``bpe_simple_vocab_16e6.txt.gz`` (or a folder that holds it).

    Raises:
        ModelNotFoundError: if the files are not there, or are not CLIP's.
    """
    from transformers import CLIPTokenizer

    asked = Path(place).expanduser()
    published = asked / PUBLISHED_FILE if asked.is_dir() else asked
    try:
        if published.is_file():
            tokenizer = _from_published(published)
        elif any((asked / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            tokenizer = CLIPTokenizer.from_pretrained(asked, local_files_only=True)
        else:
            raise ModelNotFoundError(f"no CLIP tokenizer in {asked}; {_WHERE}")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ModelNotFoundError(f"the CLIP tokenizer in {asked} cannot be read ({reason}); {_WHERE}") from error
    return tokenizer


def _from_published(file: Path) -> CLIPTokenizer:
    """The vocabulary as CLIP's code makes it: bytes, bytes that end a word, one token a merge, two marks."""
    from transformers import CLIPTokenizer

    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rules = lines.read().split("\n")[1:]
    letters = byte_letters()
    rules = rules[: _VOCABULARY_TOKENS - 2 * len(letters) - 2]
    merges: list[Any] = [tuple(rule.split()) for rule in rules]
    if len(merges) < _VOCABULARY_TOKENS - 2 * len(letters) - 2 or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"{len(merges)} merges, and not all of two parts")
    names = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges), _START, _END]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=merges)


def byte_letters() -> list[str]:
    """One printable letter for each of the 256 bytes, in CLIP's order: printable bytes stand for themselves."""
    themselves = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(themselves))
    return [chr(byte) for byte in themselves] + [chr(256 + i) for i in range(others)]


def tokenise(tokenizer: Any, texts: Sequence[str], context_tokens: int = 77) -> torch.Tensor:
    """Texts as the text trunk reads them.

    A text that is too long keeps its end token and loses words before it; the published code cuts the end token off,
    and then reads the text at some other word. As there, ``&amp;`` and the like become their characters; repairing
    wrongly decoded characters, which the published code leaves to ftfy, is left to the caller.

    Args:
        tokenizer: from `load_text_tokenizer`.
        texts: B texts.
        context_tokens: the longest, start and end token included.

    Returns:
        int64 ``(B, L)``, L the longest of the texts, padded with 0 on the right.
    """
    rows = []
    for text in texts:
        words = _words(tokenizer, html.unescape(html.unescape(text)))
        rows.append([tokenizer.bos_token_id, *words[: context_tokens - 2], tokenizer.eos_token_id])
    ids = torch.zeros((len(rows), max(map(len, rows), default=0)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids


def _words(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text; the names of the start and the end token are words like others."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
