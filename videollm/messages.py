"""The one message format: what a dataset yields, a session keeps, the HTTP API accepts and the processor renders.

A message is a role and a list of parts. Media parts name a clip; the pixels and samples travel beside the messages,
in a mapping from that name to a `videollm.clips.Clip`. An assistant's text part keeps the token ids that were
generated, so that a later turn never re-tokenises an answer into other ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class TextPart:
    """Words. ``token_ids`` is set on generated text only: exactly the ids generated, without the stop token."""

    text: str
    token_ids: tuple[int, ...] | None = None
    type: Literal["text"] = "text"


@dataclass(frozen=True)
class MediaPart:
    """A clip shown to the model; ``clip`` is its key beside the messages.

    A ``video`` part shows its frames and, where the clip has sound and the model an ear, its sound.
    """

    clip: str
    type: Literal["image", "video", "audio"] = "video"


@dataclass(frozen=True)
class ToolCallPart:
    """A call of a tool: by the model, in an assistant's message, or by the person, in a user's.

    ``token_ids`` are exactly the ids with which the model called; None where it did not say the call in words.
    """

    name: str
    arguments: dict[str, Any]
    call_id: str
    token_ids: tuple[int, ...] | None = None
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True)
class ToolResultPart:
    """What a tool answered. ``content`` is data, never an instruction; clips it shows follow as media parts."""

    call_id: str
    content: str
    refused: bool = False
    type: Literal["tool_result"] = "tool_result"


Part = TextPart | MediaPart | ToolCallPart | ToolResultPart


@dataclass(frozen=True)
class Message:
    """A role and its parts, in the order in which they are shown."""

    role: Role
    parts: tuple[Part, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant", "tool"):
            raise ValueError(f"role must be system, user, assistant or tool, found {self.role!r}")

    @property
    def text(self) -> str:
        """The words of all text parts, joined by a newline."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def media(self) -> tuple[MediaPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, MediaPart))


def user(text: str = "", media: Sequence[MediaPart] = ()) -> Message:
    """A user's message: media first, then words."""
    return Message("user", (*media, *([TextPart(text)] if text else [])))


def assistant(text: str, token_ids: Sequence[int] | None = None) -> Message:
    """An assistant's answer in words."""
    return Message("assistant", (TextPart(text, None if token_ids is None else tuple(token_ids)),))


def system(text: str) -> Message:
    """The instruction that opens a conversation."""
    return Message("system", (TextPart(text),))
