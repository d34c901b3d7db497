"""The choice to answer or to call a tool, for a decoder whose chat template has no form for calls.

The model is asked for one of five words and scores each; the same question without content says how much it likes each
word anyway, and is subtracted. What it then calls with is taken from the user's own words and from what tools found
before, never from text that stands in a video, a narration or a file: so no words of others can make a call. Functions
of whoever asks are chosen in the same way, where the user's words hold all that they require.

Source: Zhao et al., "Calibrate Before Use" (2021), section 4, for the question without content.

Notation: L tokens, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import torch

from videollm.chat.cache import KeyValueCache
from videollm.chat.calls import Evidence, times_in
from videollm.chat.generation import Step, take_step
from videollm.messages import TextPart

ANSWER = "answer"
CHOICES: Mapping[str, str] = {
    ANSWER: "what was shown is enough",
    "narrate": "tell what happens in a stretch",
    "search": "find the moment",
    "look": "watch a stretch again",
    "listen": "hear a stretch again",
}
NO_CONTENT = "N/A"
MARGIN_NATS = 1.0
"""By how much a tool must be likelier than to answer, both against the question without content."""
AROUND_SECONDS = 4.0
"""How far around a single time that the user names is looked."""

Prompt = TypeVar("Prompt")
Call = tuple[str, dict[str, Any]]


def choice_text(offered: Sequence[str], about: Mapping[str, str] = CHOICES) -> str:
    """What the model is asked, behind the question."""
    told = "; ".join(f"{name}: {about[name]}" for name in offered)
    return f"Choose what to do first, in one word. {told}."


def choose_call(
    model: Any,
    tokenizer: Any,
    cache: KeyValueCache,
    *,
    question: str,
    lasts: Mapping[str, float],
    used: Sequence[Evidence],
    made: Sequence[Call],
    prompt: Callable[[Sequence[TextPart], str | None], Prompt | None],
    logits_of: Callable[[Prompt], Generator[None, Any, torch.Tensor | None]],
) -> Generator[None, Any, Call | None]:
    """Lets a model choose; pauses between passes.

    Args:
        model, tokenizer, cache: of the conversation.
        question: the user's words.
        lasts: videos that can be named, and how long each is, in seconds.
        used: what calls of this turn have found.
        made: calls of this turn; none is made twice.
        prompt: gives the prompt with further parts behind the question, and with other words for the question; None
            where the context has no room.
        logits_of: reads a prompt and gives the logits (V,) after it; None: stopped.

    Returns:
        a tool and its arguments; None: to answer.
    """
    calls = {
        name: call
        for name in CHOICES
        if name != ANSWER and (call := _call(name, question, lasts, used)) is not None and call not in made
    }
    return (yield from _chosen(model, tokenizer, cache, calls, CHOICES, prompt, logits_of))


def choose_function(
    model: Any,
    tokenizer: Any,
    cache: KeyValueCache,
    *,
    question: str,
    functions: Sequence[Mapping[str, Any]],
    made: Sequence[Call],
    prompt: Callable[[Sequence[TextPart], str | None], Prompt | None],
    logits_of: Callable[[Prompt], Generator[None, Any, torch.Tensor | None]],
) -> Generator[None, Any, Call | None]:
    """Lets a model choose a function of whoever asks; for all else see `choose_call`.

    Args:
        functions: their JSON schemas. One is offered where `arguments_in` finds all that it requires.
    """
    calls: dict[str, Call] = {}
    about = {ANSWER: CHOICES[ANSWER]}
    for schema in functions:
        function = schema["function"]
        arguments = arguments_in(question, function.get("parameters") or {})
        if arguments is not None and (function["name"], arguments) not in made:
            calls[function["name"]] = function["name"], arguments
            about[function["name"]] = " ".join(str(function.get("description") or function["name"]).split())
    return (yield from _chosen(model, tokenizer, cache, calls, about, prompt, logits_of))


def _chosen(
    model: Any,
    tokenizer: Any,
    cache: KeyValueCache,
    calls: Mapping[str, Call],
    about: Mapping[str, str],
    prompt: Callable[[Sequence[TextPart], str | None], Prompt | None],
    logits_of: Callable[[Prompt], Generator[None, Any, torch.Tensor | None]],
) -> Generator[None, Any, Call | None]:
    """The call that the model clearly likes better than to answer."""
    if not calls:
        return None
    offered = [ANSWER, *calls]
    parts = [TextPart(choice_text(offered, about))]
    scores: list[dict[str, float]] = []
    for words in (None, NO_CONTENT):
        asked = prompt(parts, words)
        if asked is None:
            return None
        logits = yield from logits_of(asked)
        if logits is None:
            return None
        scores.append(_scores(model, tokenizer, cache, logits, offered))
    gain = {name: scores[0][name] - scores[1][name] for name in offered}
    best = max(calls, key=lambda name: gain[name])
    return calls[best] if gain[best] > gain[ANSWER] + MARGIN_NATS else None


@torch.inference_mode()
def _scores(
    model: Any, tokenizer: Any, cache: KeyValueCache, logits: torch.Tensor, words: Sequence[str]
) -> dict[str, float]:
    """The log probability of each word after a prompt that is cached."""
    length = len(cache)
    found: dict[str, float] = {}
    for word in words:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        total, after = 0.0, logits
        for place, token in enumerate(ids):
            total += float(after.float().log_softmax(-1)[token])
            if place + 1 < len(ids):
                after = take_step(model, Step(cache, token))
        cache.truncate(length)
        found[word] = total
    return found


# -- arguments ---------------------------------------------------------------------------------------------------------


def _call(name: str, question: str, lasts: Mapping[str, float], used: Sequence[Evidence]) -> Call | None:
    """A call for the user's question; None where there is nothing to call it with."""
    if name == "search":
        return name, {"query": question}
    video = video_meant(question, lasts, used)
    if video is None:
        return None
    lasting = lasts[video]
    times = [at for at in times_in(question) if at <= lasting]
    hit = next((one for one in used if one.video == video and one.how == "retrieved"), None)
    if len(times) > 1:
        start, end = min(times), max(times)
    elif times:
        start, end = times[0] - AROUND_SECONDS, times[0] + AROUND_SECONDS
    elif hit is not None:
        start, end = hit.start_seconds, hit.end_seconds
    else:
        start, end = 0.0, lasting
    start, end = max(start, 0.0), min(end, lasting)
    return (name, {"video": video, "start_seconds": start, "end_seconds": end}) if start < end else None


def video_meant(question: str, lasts: Mapping[str, float], used: Sequence[Evidence]) -> str | None:
    """The video that the user names, in which something was found, or that came last."""
    named = [name for name in lasts if name in question]
    found = [one.video for one in used if one.video in lasts]
    return next(iter([*named, *found, *reversed(list(lasts))]), None)


_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")


def arguments_in(question: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of a function from the user's words alone; None where they do not hold all that it requires.

    A choice among given words is the one that the question names; numbers are those that it names, in their order;
    one text without such a choice is the question itself.

    Args:
        parameters: a JSON schema of an object.
    """
    properties, required = parameters.get("properties") or {}, parameters.get("required") or []
    numbers = [float(found) for found in _NUMBER.findall(question)]
    texts, arguments = 0, {}
    for name, schema in properties.items():
        kind, options = schema.get("type"), schema.get("enum")
        if options is not None:
            named = [one for one in options if isinstance(one, str) and _names(question, one)]
            value = named[0] if named else None
        elif kind in ("number", "integer"):
            fits = numbers and (kind == "number" or numbers[0].is_integer())
            number = numbers.pop(0) if fits else None
            value = int(number) if number is not None and number.is_integer() else number
        else:
            value = question if kind == "string" and name in required and not texts else None
            texts += value is not None
        if value is not None:
            arguments[name] = value
        elif name in required:
            return None
    return None if set(required) - set(properties) else arguments


def _names(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
