"""How a conversation calls tools: what a tool gives back, and what a decoder's words say when they are a call.

Only words that the model itself generated are ever read for a call; what a tool gives back is data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from videollm.clips import Clip

Modality = Literal["seen", "heard", "narrated", "retrieved"]


@dataclass(frozen=True)
class Evidence:
    """A stretch that an answer rests on.

    Attributes:
        video: its name in the conversation.
        start_seconds, end_seconds: of the stretch, in seconds of the video.
        how: whether it was seen, heard, told by a narrator, or found by a search.
    """

    video: str
    start_seconds: float
    end_seconds: float
    how: Modality


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a tool gave back.

    Attributes:
        content: words, one finding a line; or, refused, one line that says why.
        used: the stretches that they are about.
        refused: the call was not carried out.
        clip: what the model is shown beside the words; None: nothing.
    """

    content: str
    used: tuple[Evidence, ...] = ()
    refused: bool = False
    clip: Clip | None = None


class Tools(Protocol):
    """What a session is given to call; `videollm.tools.router.Router` is the one there is.

    Attributes:
        calls_per_turn: how often the model may call while it answers one question.
    """

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """JSON schemas, as chat templates take them."""
        ...

    @property
    def calls_per_turn(self) -> int: ...

    def names(self, files: Mapping[str, Path]) -> Mapping[str, Path]:
        """The videos that a call can name: these files and, beside them, what the tools have of their own."""
        ...

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        *,
        stopped: Callable[[], bool] = ...,
        shows: bool = ...,
    ) -> Outcome:
        """Carries out a call over the files that the session holds, by name; never raises for what is asked."""
        ...


_FENCED = re.compile(r"\s*(?:<\|python_tag\|>|<tool_call>)?\s*(\{.*\})\s*(?:</tool_call>)?\s*", re.DOTALL)


def call_in(text: str) -> tuple[str, dict[str, Any]] | None:
    """The name and arguments of a call, where a generated text is one and nothing else; None where it is words.

    Read are the forms of Llama 3.1 (``{"name": ..., "parameters": {...}}``) and of Hermes and Qwen (``arguments``,
    between ``<tool_call>`` tags).

    Source: the models' cards; "Llama 3.1", JSON based tool calling.
    """
    found = _FENCED.fullmatch(text)
    if found is None:
        return None
    try:
        told = json.loads(found[1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return None
    arguments = told.get("parameters", told.get("arguments", {}))
    if not isinstance(arguments, dict) or set(told) - {"name", "parameters", "arguments", "type"}:
        return None
    return told["name"], arguments


_BRIEF = re.compile(r"(look|listen|narrate|search|chapters)\b(.*)", re.DOTALL)
AROUND_SECONDS = 2.0
"""How far around a single time a brief call looks."""


def brief_call_in(text: str, video: str | None) -> tuple[str, dict[str, Any]]:
    """The call that the words behind a token for calls are, as `tiny` says them.

    ``look 4:31`` is about the seconds around a time, ``narrate 4:31 4:51`` about a stretch; ``search red star`` has a
    query, ``chapters`` nothing. What is none of these is a call that nobody carries out.

    Args:
        text: what stands behind the token.
        video: what it is about, where it is about one; such calls name none.
    """
    found = _BRIEF.fullmatch(text.strip())
    if found is None:
        return text.strip(), {}
    name, rest = found[1], found[2].strip()
    if name == "search":
        return name, {"query": rest}
    arguments: dict[str, Any] = {} if video is None else {"video": video}
    times = times_in(rest)
    if name == "chapters" or not times:
        return name, arguments
    start, end = (min(times), max(times)) if len(times) > 1 else (times[0] - AROUND_SECONDS, times[0] + AROUND_SECONDS)
    return name, {**arguments, "start_seconds": max(start, 0.0), "end_seconds": end}


_CLOCK = r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2}(?:\.\d+)?)"
_TIME = re.compile(rf"(?<![\w.:]){_CLOCK}(?![\w:])|(?<![\w.:])(\d+(?:\.\d+)?)\s?(?:s|sec|seconds?)\b")


def times_in(text: str) -> list[float]:
    """The times that words name, in seconds: ``0:12``, ``1:02:03``, ``12.5 s``, ``at 3 seconds``."""
    found = []
    for hours, minutes, seconds, alone in _TIME.findall(text):
        found.append(float(alone) if alone else 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds))
    return found


def may_become_a_call(text: str) -> bool:
    """Whether the beginning of a generated text may still turn out to be a call, so that it is not shown yet."""
    start = text.lstrip()
    return not start or any(
        start.startswith(opening) or opening.startswith(start) for opening in ("{", "<|python_tag|>", "<tool_call>")
    )


def shortened(text: str) -> str:
    """What a tool gave back, without its last quarter."""
    return text[: len(text) * 3 // 4] + "..."
