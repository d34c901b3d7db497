"""The published tokenisation: LLaMA's sentencepiece vocabulary, every stretch of text begun with a blank of its own.

The published models were trained with the first, slow LLaMA tokenizer: the text is cut at ``<s> </s> <unk>`` and at the
placeholders of media, and each stretch is tokenised as if it stood alone, a word boundary in front of it. The library's
present LLaMA tokenizer puts that boundary before the first stretch only, and not before blanks, which gives other ids.

Source: Kudo and Richardson, "SentencePiece" (2018), and its `sentencepiece_model.proto`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from ...errors import ModelNotFoundError

PLACEHOLDERS = ("<ImageHere>", "<AudioHere>")
"""Added behind the vocabulary, as published; blanks next to them are swallowed. The decoder has no rows for them."""

_BLANK = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_BPE = 2
_TAKE_ANOTHER = "give the tokenizer.model of a LLaMA, Vicuna or Llama-2 folder"


def llama_tokenizer(file: str | Path) -> PreTrainedTokenizerFast:
    """A ``tokenizer.model`` as a tokenizer with the published tokenisation.

    Args:
        file: a sentencepiece BPE model with byte fallback and without text normalisation, as all of LLaMA 1 and 2.

    Raises:
        ModelNotFoundError: if there is no such file, or it is something else.
    """
    pieces = _read_pieces(Path(file))
    vocabulary = {piece.text: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, _merges(pieces, vocabulary), fuse_unk=True, byte_fallback=True, dropout=None)
    )
    unknown = next((piece.text for piece in pieces if piece.kind == _UNKNOWN), "<unk>")
    controls = [piece.text for piece in pieces if piece.kind == _CONTROL]
    begin, end = (name if name in controls else unknown for name in ("<s>", "</s>"))
    plain = [AddedToken(p.text, normalized=False) for p in pieces if p.kind == _USER_DEFINED]
    tokenizer.add_tokens(plain)
    return _finished(tokenizer, begin, end, unknown)


def as_published(tokenizer: Any) -> Any:
    """The same vocabulary with the published tokenisation; tokenizers of another kind are returned as they are.

    Args:
        tokenizer: any tokenizer of the library. Of the same kind are those with byte fallback that write a blank as
            U+2581: LLaMA 1 and 2, and what descends from them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.BPE) or not backend.model.byte_fallback:
        return tokenizer
    if backend.token_to_id(_BLANK) is None:
        return tokenizer
    stored = json.loads(backend.to_str())
    model = stored["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    fresh = Tokenizer(models.BPE(model["vocab"], merges, fuse_unk=True, byte_fallback=True, dropout=None))
    special = {str(tokenizer.bos_token), str(tokenizer.eos_token), str(tokenizer.unk_token)}
    for token in stored["added_tokens"]:
        if token["content"] not in special and token["content"] not in PLACEHOLDERS:
            fresh.add_tokens([AddedToken(**{k: v for k, v in token.items() if k != "id"})])
    return _finished(fresh, str(tokenizer.bos_token), str(tokenizer.eos_token), str(tokenizer.unk_token))


def _finished(tokenizer: Tokenizer, begin: str, end: str, unknown: str) -> PreTrainedTokenizerFast:
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_BLANK), normalizers.Replace(" ", _BLANK)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (unknown, begin, end)])
    placeholders = [AddedToken(name, lstrip=True, rstrip=True, normalized=False, special=True) for name in PLACEHOLDERS]
    tokenizer.add_special_tokens(placeholders)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        unk_token=unknown,
        pad_token=unknown,
        extra_special_tokens=placeholders,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


# ---- the file: protocol buffers, of which four fields are needed


@dataclass(frozen=True)
class _Piece:
    text: str
    score: float
    kind: int


def _merges(pieces: list[_Piece], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, the best piece first."""
    usable = {piece.text for piece in pieces if piece.kind in (_NORMAL, _USER_DEFINED)}
    best_first = sorted((p for p in pieces if p.kind == _NORMAL), key=lambda p: (-p.score, vocabulary[p.text]))
    return [
        (piece.text[:cut], piece.text[cut:])
        for piece in best_first
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in usable and piece.text[cut:] in usable
    ]


def _read_pieces(file: Path) -> list[_Piece]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"no tokenizer at {file} ({error.strerror}); {_TAKE_ANOTHER}") from error
    pieces: list[_Piece] = []
    kind_of_model, blank_in_front, blanks_dropped, rules = 1, 1, 1, b""
    try:
        for number, value in _fields(data):
            inner = dict(_fields(value)) if number in (1, 2, 3) else {}
            if number == 1:
                score = struct.unpack("<f", inner[2])[0] if 2 in inner else 0.0
                pieces.append(_Piece(inner[1].decode(), score, inner.get(3, _NORMAL)))
            elif number == 2:
                kind_of_model = inner.get(3, 1)
            elif number == 3:
                rules, blank_in_front, blanks_dropped = inner.get(2, b""), inner.get(3, 1), inner.get(4, 1)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise ModelNotFoundError(f"{file} is no sentencepiece model; {_TAKE_ANOTHER}") from error
    if not pieces or kind_of_model != _BPE or not blank_in_front or blanks_dropped or rules:
        raise ModelNotFoundError(f"{file} is a sentencepiece model of another kind than LLaMA's; {_TAKE_ANOTHER}")
    return pieces


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of the fields of a message: whole numbers, or bytes."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        length = {1: 8, 5: 4}.get(kind) or (number() if kind == 2 else -1)
        if length < 0 or place + length > len(data):
            raise ValueError("no message of protocol buffers")
        yield key >> 3, data[place : place + length]
        place += length
