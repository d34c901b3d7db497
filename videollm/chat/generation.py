"""Tokens and words, one at a time, on a cache that outlives the turn.

The library's `generate` calls back instead of yielding, and takes its cache away at the end; a chat needs the reverse.
Sampling itself is the library's: its logits warpers, in its order.

Notation: L tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from videollm.chat.cache import KeyValueCache, Position
from videollm.errors import ChatError, ConfigError

PREFILL_CHUNK_TOKENS = 512
"""Prompt positions computed in one pass: bounds the memory of a long prompt, and lets stop() work during a prefill."""

Finish = Literal["end", "length", "stopped"]


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is chosen. The default is greedy: the same question gets the same answer.

    Attributes:
        max_new_tokens: the answer is cut after this many tokens.
        temperature: 0 is greedy; above 0, tokens are drawn, the flatter the higher.
        top_p: keep the likeliest tokens that together have this share, in (0, 1]. Only when drawing.
        top_k: keep this many likeliest tokens; 0 keeps all. Only when drawing.
        repetition_penalty: above 0; divides the scores of tokens that the answer already holds; 1 leaves them.
        seed: makes drawing repeatable.

    Raises:
        ConfigError: a value out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        def check(name: str, kind: type | tuple[type, ...], ok: Callable[[Any], bool], wanted: str) -> None:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not ok(value):
                raise ConfigError(f"{name} must be {wanted}, found {value!r}")

        number = (int, float)
        check("max_new_tokens", int, lambda v: v >= 1, "a whole number of at least 1")
        check("temperature", number, lambda v: math.isfinite(v) and v >= 0, "a number of at least 0 (0 is greedy)")
        check("top_p", number, lambda v: 0 < v <= 1, "a number above 0 and at most 1")
        check("top_k", int, lambda v: v >= 0, "a whole number of at least 0 (0 keeps all)")
        check("repetition_penalty", number, lambda v: math.isfinite(v) and v > 0, "a number above 0")
        if self.seed is not None:
            check("seed", int, lambda v: 0 <= v < 2**63, "a whole number from 0 to 2**63 - 1")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class TokenChooser:
    """Chooses the next token from logits, by the options; never one of the ids in ``never``."""

    def __init__(self, options: GenerationOptions, never: Sequence[int] = ()) -> None:
        self.greedy = options.greedy
        self.generator = torch.Generator()
        if options.seed is not None:
            self.generator.manual_seed(options.seed)
        else:
            self.generator.seed()
        self.processors = LogitsProcessorList()
        if never:
            self.processors.append(SuppressTokensLogitsProcessor(list(never)))
        if options.repetition_penalty != 1:
            self.processors.append(RepetitionPenaltyLogitsProcessor(float(options.repetition_penalty)))
        if not options.greedy:
            self.processors.append(TemperatureLogitsWarper(float(options.temperature)))
            if options.top_k > 0:
                self.processors.append(TopKLogitsWarper(options.top_k))
            if options.top_p < 1:
                self.processors.append(TopPLogitsWarper(float(options.top_p)))

    def choose(self, logits: torch.Tensor, generated: Sequence[int]) -> int:
        """The next token id, from ``logits`` float (V,) and the ids that the answer holds so far.

        Raises:
            ChatError: the logits are not all numbers.
        """
        scores = logits.detach().to("cpu", torch.float32)[None]
        if bool(scores.isnan().any()):
            raise ChatError(
                "the model computed numbers that are none (NaN): its weights are damaged, or its number format is too "
                "narrow; `videollm doctor DIR` looks it over, and bfloat16 or float32 hold more than float16"
            )
        if self.processors:
            ids: Any = torch.tensor([list(generated)], dtype=torch.long)
            scores = self.processors(ids, scores)
        if self.greedy:
            return int(scores[0].argmax())
        return int(torch.multinomial(scores[0].softmax(-1), 1, generator=self.generator))


@torch.inference_mode()
def forward(model: Any, cache: KeyValueCache, embeds: torch.Tensor, positions: Sequence[Position]) -> torch.Tensor:
    """Runs the decoder on new positions behind those cached.

    Args:
        model: a `VideoLlamaForConditionalGeneration`.
        cache: what was computed before; grows by L.
        embeds: (1, L, D) in the model's dtype.
        positions: what the L positions hold.

    Returns:
        logits (V,) after the last position.

    Raises:
        Anything the model raises; the cache then knows only the positions it had, and crops the rest before its next
        use.
    """
    start, length = len(cache), embeds.shape[1]
    output = model(
        inputs_embeds=embeds,
        position_ids=torch.arange(start, start + length, device=embeds.device)[None],
        past_key_values=cache.states,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.positions.extend(positions)
    return output.logits[0, -1]


def prefill(
    model: Any, cache: KeyValueCache, embeds: torch.Tensor, positions: Sequence[Position], stopped: Callable[[], bool]
) -> torch.Tensor | None:
    """Computes a prompt behind what is cached, in chunks, and returns the logits (V,) after it; None if stopped."""
    logits = None
    for start in range(0, len(positions), PREFILL_CHUNK_TOKENS):
        if stopped():
            return None
        chunk = slice(start, start + PREFILL_CHUNK_TOKENS)
        logits = forward(model, cache, embeds[:, chunk], positions[chunk])
    return logits


class Decoding:
    """An answer as an iterator of token ids, without the stop token.

    Ids that may turn out to begin a stop sequence are held back until it is clear that they do not.

    Attributes:
        finish: how it ended: ``"end"`` the model ended it, ``"length"`` the limit did, ``"stopped"`` somebody did.
    """

    def __init__(
        self,
        model: Any,
        cache: KeyValueCache,
        logits: torch.Tensor,
        options: GenerationOptions,
        *,
        limit: int,
        stop_sequences: Sequence[Sequence[int]],
        never: Sequence[int] = (),
        stopped: Callable[[], bool],
    ) -> None:
        self.finish: Finish = "stopped"
        self._model, self._cache, self._logits = model, cache, logits
        self._chooser = TokenChooser(options, never)
        self._limit = limit
        self._stops = [tuple(stop) for stop in stop_sequences if stop]
        self._stopped = stopped

    def __iter__(self) -> Iterator[int]:
        generated: list[int] = []
        released = 0
        while not self._stopped():
            generated.append(self._chooser.choose(self._logits, generated))
            end = next((len(s) for s in self._stops if tuple(generated[-len(s) :]) == s), 0)
            if end:
                self.finish = "end"
                yield from generated[released : len(generated) - end]
                return
            if len(generated) >= self._limit:
                self.finish = "length"
                yield from generated[released:]
                return
            safe = len(generated) - self._held(generated)
            yield from generated[released:safe]
            released = safe
            if self._stopped():
                break
            self._logits = self._step(generated[-1])
        yield from generated[released:]

    def _held(self, generated: list[int]) -> int:
        """How many of the last ids may be the beginning of a stop sequence."""
        return max(
            (n for stop in self._stops for n in range(1, len(stop)) if tuple(generated[-n:]) == stop[:n]), default=0
        )

    @torch.inference_mode()
    def _step(self, token_id: int) -> torch.Tensor:
        embedding = self._model.get_input_embeddings()
        ids = torch.tensor([[token_id]], device=embedding.weight.device)
        return forward(self._model, self._cache, embedding(ids), [token_id])


def stop_sequences(model: Any, processor: Any) -> list[tuple[int, ...]]:
    """Ids that end an answer: those of the generation config and the model's, and what a template closes with."""
    ids: set[int] = set()
    for config in (model.generation_config, model.config):
        found = getattr(config, "eos_token_id", None)
        ids |= set() if found is None else {found} if isinstance(found, int) else set(found)
    return [(i,) for i in sorted(ids)] + [tuple(stop) for stop in getattr(processor, "stop_sequences", ())]


class Detokenizer(Protocol):
    """What turns ids into text: a tokenizer of the library."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str: ...


class WordStream:
    """Token ids in, whole words out.

    A word is given out when the next one begins, so that no half word and no half character is ever shown; text in
    scripts written without spaces is given out character by character. The pieces joined are the answer's text:
    decoded as a whole, without blanks around it.
    """

    def __init__(self, tokenizer: Detokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._given = ""

    def put(self, token_id: int) -> str:
        """Takes one id and returns the words that are now complete, often none."""
        self._ids.append(token_id)
        text = self._text().rstrip("\ufffd")
        end = len(text)
        while end > len(self._given) and not _written_without_spaces(text[end - 1]) and not text[end - 1].isspace():
            end -= 1
        return self._give(text[:end].rstrip())

    def finish(self) -> str:
        """The rest."""
        return self._give(self._text().rstrip())

    @property
    def text(self) -> str:
        """What was given out so far."""
        return self._given

    def _text(self) -> str:
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.lstrip()

    def _give(self, text: str) -> str:
        piece = text[len(self._given) :]
        self._given += piece
        return piece


SCRIPTS_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def _written_without_spaces(character: str) -> bool:
    return character >= "\u0e00" and unicodedata.name(character, "").startswith(SCRIPTS_WITHOUT_SPACES)
