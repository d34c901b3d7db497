"""Tokens and words, one at a time, on a cache that outlives the turn.

The library's `generate` calls back instead of yielding, and takes its cache away at the end; a chat needs the reverse.
Sampling itself is the library's: its logits warpers, in its order.

Choosing a token and running the model are apart: an answer under way (`Decoding`) asks for a `Step`, and a `Stepper`
takes those of many answers in one forward pass.

Notation: L tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Generator, Sequence
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

from videollm.chat.cache import CacheBatch, KeyValueCache, Position
from videollm.errors import ChatError, ConfigError

PREFILL_CHUNK_TOKENS = 512
"""Prompt positions computed in one pass: bounds the memory of a long prompt, and lets stop() work during a prefill."""

Finish = Literal["end", "length", "stopped", "calls"]


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
) -> Generator[None, Any, torch.Tensor | None]:
    """Computes a prompt behind what is cached, in chunks, and pauses between them, for others to go on.

    Returns:
        the logits (V,) after it; None if stopped.
    """
    logits = None
    for start in range(0, len(positions), PREFILL_CHUNK_TOKENS):
        if start:
            yield
        if stopped():
            return None
        chunk = slice(start, start + PREFILL_CHUNK_TOKENS)
        logits = forward(model, cache, embeds[:, chunk], positions[chunk])
    return logits


@dataclass(frozen=True, eq=False)
class Step:
    """What an answer under way asks for: the logits after its next token, which joins its cache."""

    cache: KeyValueCache
    token_id: int


class Stepper:
    """Takes steps of answers under way: those that are asked for together in one forward pass.

    An answer joins the batch with its first step among others, and leaves it with the first step taken without it, or
    when its cache is used otherwise.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._batch = CacheBatch()

    @property
    def memory_bytes(self) -> int:
        """Of the caches in the batch."""
        return self._batch.nbytes

    def take(self, steps: Sequence[Step]) -> list[torch.Tensor | Exception]:
        """Runs each answer's next token.

        Returns:
            for each step the logits (V,) after it, or why it failed, which says nothing about the others.
        """
        self._batch.keep_only([step.cache for step in steps])
        if len(steps) > 1 or len(self._batch):
            try:
                return self._together(steps)
            except Exception:
                self._batch.keep_only([])  # whose fault it was shows when each is alone
        return [self._alone(step) for step in steps]

    def _together(self, steps: Sequence[Step]) -> list[torch.Tensor | Exception]:
        for step in steps:
            if step.cache not in self._batch:
                self._batch.join(step.cache)
        asked = {id(step.cache): step.token_id for step in steps}
        caches = self._batch.caches
        logits = self._batch.step(self.model, [asked[id(cache)] for cache in caches])
        found = {id(cache): row for cache, row in zip(caches, logits, strict=True)}
        return [found[id(step.cache)] for step in steps]

    def _alone(self, step: Step) -> torch.Tensor | Exception:
        try:
            return take_step(self.model, step)
        except Exception as error:
            return error


@torch.inference_mode()
def take_step(model: Any, step: Step) -> torch.Tensor:
    """Runs one answer's next token, alone: logits (V,). Raises anything the model raises, as `forward`."""
    embedding = model.get_input_embeddings()
    ids = torch.tensor([[step.token_id]], device=embedding.weight.device)
    return forward(model, step.cache, embedding(ids), [step.token_id])


class Decoding:
    """An answer under way: takes logits, gives token ids, without the stop token.

    Ids that may turn out to begin a stop sequence are held back until it is clear that they do not.

    Attributes:
        finish: how it ended: ``"end"`` the model ended it, ``"length"`` the limit did; None: it goes on.
    """

    def __init__(
        self,
        options: GenerationOptions,
        *,
        limit: int,
        stop_sequences: Sequence[Sequence[int]],
        never: Sequence[int] = (),
    ) -> None:
        self.finish: Finish | None = None
        self._chooser = TokenChooser(options, never)
        self._limit = limit
        self._stops = [tuple(stop) for stop in stop_sequences if stop]
        self._generated: list[int] = []
        self._released = 0

    @property
    def last_id(self) -> int:
        """The id that was chosen last: while the answer goes on, what the model must run next."""
        return self._generated[-1]

    def choose(self, logits: torch.Tensor) -> list[int]:
        """Chooses a token from the logits (V,) after those before, and returns the ids that are now certain.

        Raises:
            ChatError: the logits are not all numbers.
        """
        generated = self._generated
        generated.append(self._chooser.choose(logits, generated))
        end = next((len(s) for s in self._stops if tuple(generated[-len(s) :]) == s), 0)
        if end:
            self.finish = "end"
            return self._release(len(generated) - end)
        if len(generated) >= self._limit:
            self.finish = "length"
            return self._release(len(generated))
        return self._release(len(generated) - self._held())

    def rest(self) -> list[int]:
        """The ids held back, for an answer that is stopped."""
        return self._release(len(self._generated))

    def _release(self, upto: int) -> list[int]:
        ids = self._generated[self._released : upto]
        self._released = upto
        return ids

    def _held(self) -> int:
        """How many of the last ids may be the beginning of a stop sequence."""
        last = self._generated
        return max((n for stop in self._stops for n in range(1, len(stop)) if tuple(last[-n:]) == stop[:n]), default=0)


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
