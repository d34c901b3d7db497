"""What HTTP accepts and answers: the chat completions of OpenAI, with videos; and what it means in our messages.

Unknown fields are let through, as clients send many; those that would change the meaning of an answer are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from videollm.chat.session import Answer, plain_part
from videollm.errors import RequestError
from videollm.messages import ToolCallPart, ToolResultPart
from videollm.toolset import DECLARATIONS

MOST_MESSAGES = 512
MOST_PARTS = 64
LONGEST_TEXT_CHARACTERS = 200_000
LONGEST_INLINE_CHARACTERS = 96 * 1024**2
B = TypeVar("B", bound=BaseModel)


class Lenient(BaseModel):
    """A part of a request; fields that are not known are let through."""

    model_config = ConfigDict(extra="ignore")


class TextPart(Lenient):
    type: Literal["text"]
    text: str = Field(max_length=LONGEST_TEXT_CHARACTERS)


class Address(Lenient):
    """Where a file is: ``data:TYPE;base64,...``, ``media:ID`` of an upload, or https from hosts that are allowed."""

    url: str = Field(max_length=LONGEST_INLINE_CHARACTERS)


class VideoPart(Lenient):
    type: Literal["video_url"]
    video_url: Address


class ImagePart(Lenient):
    type: Literal["image_url"]
    image_url: Address


class Sound(Lenient):
    data: str = Field(max_length=LONGEST_INLINE_CHARACTERS, description="base64")
    format: str = Field(default="wav", max_length=16)


class AudioPart(Lenient):
    type: Literal["input_audio"]
    input_audio: Sound


Part = Annotated[TextPart | VideoPart | ImagePart | AudioPart, Field(discriminator="type")]


class RequestMessage(Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        Annotated[str, Field(max_length=LONGEST_TEXT_CHARACTERS)]
        | Annotated[list[Part], Field(max_length=MOST_PARTS)]
        | None
    ) = None
    tool_calls: list[Any] | None = None


class StreamOptions(Lenient):
    include_usage: bool = False


class ResponseFormat(Lenient):
    type: Literal["text"] = "text"


class Function(Lenient):
    name: str = Field(max_length=64)


class Tool(Lenient):
    type: Literal["function"]
    function: Function


class ChatRequest(Lenient):
    """A request for a chat completion. Greedy by default.

    Tools are those of this service, which runs them itself: give all of `/v1/tools`, or none. What was called is told
    beside the answer, as ``rounds``.
    """

    model: str = Field(max_length=256)
    messages: list[RequestMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    n: Literal[1] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=64)
    tool_choice: Literal["none", "auto"] | None = None
    # Named here so that a client that counts on them is told: they are not offered.
    functions: None = None
    function_call: None = None
    stop: list[str] | str | None = Field(default=None, max_length=0)
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether the model may call tools.

        Raises:
            RequestError: others than there are, or only some.
        """
        if not self.tools:
            return False
        ours, asked = {one.__name__ for one in DECLARATIONS}, {tool.function.name for tool in self.tools}
        if asked - ours:
            raise RequestError(
                f"tools: {min(asked - ours)[:64]!r} is none of this service, which runs its own tools "
                f"({', '.join(sorted(ours))}) and hands no calls to clients; give those of /v1/tools, or none"
            )
        if ours - asked:
            raise RequestError(f"tools: {min(ours - asked)!r} is missing; give all of /v1/tools, or none")
        return self.tool_choice != "none"

    @property
    def options(self) -> dict[str, Any]:
        """Fields of `videollm.chat.generation.GenerationOptions`."""
        tokens = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        chosen = {"max_new_tokens": tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class MediaRef:
    """A file that a message shows.

    Attributes:
        identity: equal for equal files: what two requests are compared by.
        name: what to call the clip.
        upload_id: of a file uploaded before; or
        url: where it can be fetched; or
        data: the file itself.
    """

    identity: str
    name: str
    upload_id: str | None = None
    url: str | None = None
    data: bytes | None = None


@dataclass(frozen=True)
class Said:
    """A message of a request: words and files."""

    role: Literal["system", "user", "assistant"]
    text: str
    media: tuple[MediaRef, ...] = ()

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.role, self.text, tuple(ref.identity for ref in self.media))


def parse(body: bytes, kind: type[B]) -> B:
    """The request of this kind that a body holds.

    Raises:
        RequestError: it is none.
    """
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"the request is no JSON that can be read ({reason[:200]})") from None
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise RequestError(_first(error)) from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _first(error: ValidationError) -> str:
    """The first complaint, as one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or "the request"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place[:200]}: {first['msg'][:300]}{more}"


def conversation_of(messages: Sequence[RequestMessage], check_address: Callable[[str], Any]) -> list[Said]:
    """A request's messages: at most one of the system, first; then user and assistant in turn, the last of the user.

    Args:
        check_address: raises RequestError for what is not fetched.

    Raises:
        RequestError: they are in another order, or a file cannot be read out of them.
    """
    said: list[Said] = []
    for number, message in enumerate(messages):
        role: Any = "system" if message.role == "developer" else message.role
        if role in ("tool", "function") or message.tool_calls:
            raise RequestError(
                f"messages.{number}: this service runs its tools itself and hands no calls to clients; leave calls and "
                "their results out"
            )
        if message.content is None:
            raise RequestError(f"messages.{number}.content: Field required")
        text, media = _content(message, number, check_address)
        if role == "system" and said:
            raise RequestError(f"messages.{number}: a system message must be the first")
        if media and role != "user":
            raise RequestError(f"messages.{number}: only a user can show media")
        if said and said[-1].role == role == "user":
            before = said.pop()
            text, media = "\n".join(t for t in (before.text, text) if t), (*before.media, *media)
        elif said and said[-1].role == role:
            raise RequestError(f"messages.{number}: two messages of the {role} in a row")
        said.append(Said(role, text, media))
    if said[-1].role != "user":
        raise RequestError("the last message must be the user's")
    turns = said[1:] if said[0].role == "system" else said
    if turns[0].role != "user":
        raise RequestError("the first message, after that of the system, must be the user's")
    return said


def _content(
    message: RequestMessage, number: int, check_address: Callable[[str], Any]
) -> tuple[str, tuple[MediaRef, ...]]:
    if isinstance(message.content, str):
        return message.content, ()
    words: list[str] = []
    media: list[MediaRef] = []
    for index, part in enumerate(message.content or ()):
        where = f"messages.{number}.content.{index}"
        if isinstance(part, TextPart):
            words.append(part.text)
        elif isinstance(part, VideoPart):
            media.append(reference(part.video_url.url, "video", where, check_address))
        elif isinstance(part, ImagePart):
            media.append(reference(part.image_url.url, "image", where, check_address))
        else:
            media.append(_inline(part.input_audio.data, "sound", where))
    return "\n".join(words), tuple(media)


def reference(url: str, kind: str, where: str, check_address: Callable[[str], Any]) -> MediaRef:
    """The file that an address names.

    Args:
        kind: what to call it if it has no name.
        where: in the request, for the error.
        check_address: as in `conversation_of`.

    Raises:
        RequestError: it names none.
    """
    if url.startswith("data:"):
        head, comma, data = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"{where}: a data: URL must be data:TYPE;base64,DATA")
        return _inline(data, kind, where)
    found = re.fullmatch(r"media:([\w-]{8,64})", url)
    if found:
        return MediaRef(f"media:{found[1]}", kind, upload_id=found[1])
    try:
        check_address(url)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    return MediaRef(f"url:{url}", kind, url=url)


def _inline(data: str, kind: str, where: str) -> MediaRef:
    try:
        found = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{where}: the data are not base64") from None
    if not found:
        raise RequestError(f"{where}: the file is empty (0 bytes)")
    return MediaRef(f"sha256:{hashlib.sha256(found).hexdigest()}", kind, data=found)


def described(kind: type[BaseModel], *answers: str) -> dict[str, Any]:
    """What the API's description says of a request, whose schema is in one piece, and of the types of its answers."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return whole(definitions[node["$ref"].rpartition("/")[2]])
            return {key: whole(value) for key, value in node.items() if key != "discriminator"}
        return [whole(each) for each in node] if isinstance(node, list) else node

    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": whole(schema)}}},
        "responses": {"200": {"description": "The answer", "content": {name: {} for name in answers}}},
    }


# ---- answers


FINISH = {"end": "stop", "length": "length", "stopped": "stop"}


def completion(request_id: str, model: str, answer: Answer) -> dict[str, Any]:
    """A whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text, "refusal": None},
        "logprobs": None,
        "finish_reason": FINISH[answer.finish],
    }
    return {
        **_frame(request_id, "chat.completion", model),
        "choices": [choice],
        "usage": usage(answer),
        **extras(answer),
    }


def chunk(
    request_id: str, model: str, piece: str | ToolCallPart | ToolResultPart | None, answer: Answer | None = None
) -> dict[str, Any]:
    """A piece of a streamed answer: words, or as ``round`` a tool's call or result; the last has the answer instead."""
    delta: dict[str, Any] = {"role": "assistant", "content": piece} if isinstance(piece, str) else {}
    choice = {
        "index": 0,
        "delta": delta,
        "logprobs": None,
        "finish_reason": None if answer is None else FINISH[answer.finish],
    }
    more = {} if answer is None else extras(answer)
    if isinstance(piece, ToolCallPart | ToolResultPart):
        more = {"round": plain_part(piece)}
    return {**_frame(request_id, "chat.completion.chunk", model), "choices": [choice], "usage": None, **more}


def usage_chunk(request_id: str, model: str, answer: Answer) -> dict[str, Any]:
    """What a streamed answer cost."""
    return {**_frame(request_id, "chat.completion.chunk", model), "choices": [], "usage": usage(answer)}


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens; those of media among the prompt's."""
    prompt, generated = answer.timings.prompt_tokens, answer.timings.generated_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": answer.timings.reused_tokens},
    }


def extras(answer: Answer) -> dict[str, Any]:
    """What other services do not say: what was seen and heard, what the answer rests on, what was called, forgotten."""
    told = answer.to_json()
    return {name: told[name] for name in ("coverage", "used", "rounds", "notes")}


def _frame(request_id: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": request_id, "object": kind, "created": int(time.time()), "model": model}
