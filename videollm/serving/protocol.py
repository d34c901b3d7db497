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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers.utils.chat_template_utils import get_json_schema

from videollm.chat.session import Answer, plain_part
from videollm.errors import RequestError
from videollm.messages import ToolCallPart, ToolResultPart
from videollm.toolset import DECLARATIONS

MOST_MESSAGES = 512
MOST_PARTS = 64
LONGEST_TEXT_CHARACTERS = 200_000
LONGEST_INLINE_CHARACTERS = 96 * 1024**2
LONGEST_SCHEMA_CHARACTERS, DEEPEST_SCHEMA = 16_384, 16
"""Of the parameters of a function of the client's."""
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


class CalledFunction(Lenient):
    name: str = Field(max_length=64)
    arguments: str = Field(max_length=LONGEST_TEXT_CHARACTERS, description="JSON")


class Called(Lenient):
    """A call of a function of the client's, as it was answered."""

    id: str = Field(max_length=128)
    type: Literal["function"] = "function"
    function: CalledFunction


class RequestMessage(Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        Annotated[str, Field(max_length=LONGEST_TEXT_CHARACTERS)]
        | Annotated[list[Part], Field(max_length=MOST_PARTS)]
        | None
    ) = None
    tool_calls: Annotated[list[Called], Field(max_length=MOST_PARTS)] | None = None
    tool_call_id: str | None = Field(default=None, max_length=128)


class StreamOptions(Lenient):
    include_usage: bool = False


class ResponseFormat(Lenient):
    type: Literal["text"] = "text"


class Parameters(BaseModel):
    """A JSON schema of an object."""

    model_config = ConfigDict(extra="allow")

    type: Literal["object"] = "object"
    properties: dict[str, dict[str, Any]] | None = None
    required: list[str] | None = None


class Function(Lenient):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = Field(default=None, max_length=4096)
    parameters: Parameters | None = None


class Tool(Lenient):
    type: Literal["function"]
    function: Function


class ChatRequest(Lenient):
    """A request for a chat completion. Greedy by default.

    The tools of this service are run by the service itself, where ``service_tools`` says so, or where all of them stand
    in ``tools`` as `/v1/tools` tells them; what was called is told beside the answer, as ``rounds``, and what it rests
    on as ``used``. Any other tool is the client's: an answer that calls it ends with ``tool_calls``, and
    goes on with the next request, whose messages end with what the tool gave back (role ``tool``).
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
    service_tools: bool = Field(
        default=False,
        description="the model may look, listen, narrate and search again before it answers, as with all of "
        "`/v1/tools` in `tools`; for models of which `/v1/models` says `calls_tools`, others choose less well",
    )
    # Named here so that a client that counts on them is told: they are not offered.
    old_functions: None = Field(default=None, alias="functions")
    function_call: None = None
    stop: list[str] | str | None = Field(default=None, max_length=0)
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether the model may call the tools of this service.

        Raises:
            RequestError: only some of them are given.
        """
        ours, asked = set(_our_parameters()), {tool.function.name for tool in self.tools or () if _is_ours(tool)}
        if asked and ours - asked:
            raise RequestError(f"tools: {min(ours - asked)!r} is missing; give all of /v1/tools, or none")
        return (self.service_tools or bool(asked)) and self.tool_choice != "none"

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The schemas of the client's tools that the model may call.

        Raises:
            RequestError: two tools of one name, or a schema that is too long or too deep.
        """
        names = Counter(tool.function.name for tool in self.tools or ())
        if names and names.most_common(1)[0][1] > 1:
            raise RequestError(f"tools: {names.most_common(1)[0][0]!r} is there twice; give each another name")
        schemas = [tool.model_dump(exclude_unset=True) for tool in self.tools or () if not _is_ours(tool)]
        for schema in schemas:
            parameters = schema["function"].get("parameters", {})
            if _depth(parameters) > DEEPEST_SCHEMA or len(json.dumps(parameters)) > LONGEST_SCHEMA_CHARACTERS:
                raise RequestError(
                    f"tools: the parameters of {schema['function']['name']!r} have more than "
                    f"{LONGEST_SCHEMA_CHARACTERS:,} characters, or are nested more than {DEEPEST_SCHEMA} deep"
                )
        return schemas if self.tool_choice != "none" else []

    @property
    def options(self) -> dict[str, Any]:
        """Fields of `videollm.chat.generation.GenerationOptions`."""
        tokens = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        chosen = {"max_new_tokens": tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return {name: value for name, value in chosen.items() if value is not None}


@cache
def _our_parameters() -> dict[str, Any]:
    """The schema of the parameters of each tool of this service."""
    return {one.__name__: get_json_schema(one)["function"]["parameters"] for one in DECLARATIONS}


def _is_ours(tool: Tool) -> bool:
    """Whether this service runs it: it has the name and, where it says, the parameters of one of our tools."""
    ours, given = _our_parameters().get(tool.function.name), tool.function.parameters
    return ours is not None and (given is None or given.model_dump(exclude_unset=True) == ours)


def _depth(value: Any) -> int:
    """How deep lists and objects are nested, up to a little over `DEEPEST_SCHEMA`."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST_SCHEMA:
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [each for one in inner for each in (one.values() if isinstance(one, dict) else one)]
        depth += bool(inner)
    return depth


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
    """A message of a request: words and files; calls of the client's functions, or what these gave back."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    media: tuple[MediaRef, ...] = ()
    calls: tuple[ToolCallPart, ...] = ()
    results: tuple[ToolResultPart, ...] = ()

    @property
    def identity(self) -> tuple[Any, ...]:
        calls = tuple((one.call_id, one.name, json.dumps(one.arguments, sort_keys=True)) for one in self.calls)
        results = tuple((one.call_id, one.content) for one in self.results)
        return (self.role, self.text, tuple(ref.identity for ref in self.media), calls, results)


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

    Between the two there may be calls by the assistant and what they gave back, which may also be the last of all.

    Args:
        check_address: raises RequestError for what is not fetched.

    Raises:
        RequestError: they are in another order, or a file cannot be read out of them.
    """
    said: list[Said] = []
    for number, message in enumerate(messages):
        role: Any = "system" if message.role == "developer" else message.role
        calls = _calls(message, number)
        if role == "function":
            raise RequestError(f"messages.{number}: functions are called as tools (role tool)")
        if calls and role != "assistant":
            raise RequestError(f"messages.{number}: only the assistant calls tools")
        if message.content is None and not calls:
            raise RequestError(f"messages.{number}.content: Field required")
        text, media = _content(message, number, check_address)
        if role == "system" and said:
            raise RequestError(f"messages.{number}: a system message must be the first")
        if media and role != "user":
            raise RequestError(f"messages.{number}: only a user can show media")
        open_calls = _open_calls(said)
        if role == "tool":
            if message.tool_call_id not in open_calls:
                raise RequestError(f"messages.{number}: a tool's message answers a call before it, by its tool_call_id")
            before = said.pop().results if said[-1].role == "tool" else ()
            said.append(Said("tool", "", results=(*before, ToolResultPart(message.tool_call_id, text))))
            continue
        if open_calls:
            raise RequestError(f"messages.{number}: what the call {open_calls[0]!r} gave back must come first")
        if said and said[-1].role == role == "user":
            before = said.pop()
            text, media = "\n".join(t for t in (before.text, text) if t), (*before.media, *media)
        elif said and said[-1].role == role:
            raise RequestError(f"messages.{number}: two messages of the {role} in a row")
        said.append(Said(role, text, media, calls))
    if said[-1].role not in ("user", "tool"):
        raise RequestError("the last message must be the user's, or a tool's")
    if open_calls := _open_calls(said):
        raise RequestError(f"what the call {open_calls[0]!r} gave back is missing")
    turns = said[1:] if said[0].role == "system" else said
    if not turns or turns[0].role != "user":
        raise RequestError("the first message, after that of the system, must be the user's")
    return said


def _calls(message: RequestMessage, number: int) -> tuple[ToolCallPart, ...]:
    """The calls in a message."""
    found: list[ToolCallPart] = []
    for index, call in enumerate(message.tool_calls or ()):
        try:
            arguments = json.loads(call.function.arguments or "{}", parse_constant=_no_number)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict) or _depth(arguments) > DEEPEST_SCHEMA:
            raise RequestError(f"messages.{number}.tool_calls.{index}: arguments must be a flat JSON object")
        if any(call.id == one.call_id for one in found):
            raise RequestError(f"messages.{number}.tool_calls.{index}: two calls have the id {call.id!r}")
        found.append(ToolCallPart(call.function.name, arguments, call.id))
    return tuple(found)


def _open_calls(said: Sequence[Said]) -> list[str]:
    """Ids of the last calls that have no result yet."""
    done = {one.call_id for one in said[-1].results} if said and said[-1].role == "tool" else set()
    asked = next((one for one in reversed(said) if one.role != "tool"), None)
    return [call.call_id for call in asked.calls if call.call_id not in done] if asked is not None else []


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


FINISH = {"end": "stop", "length": "length", "stopped": "stop", "calls": "tool_calls"}


def completion(request_id: str, model: str, answer: Answer) -> dict[str, Any]:
    """A whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.calls:
        message |= {"content": None, "tool_calls": [_told(call) for call in answer.calls]}
    choice = {
        "index": 0,
        "message": message,
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
    """A piece of a streamed answer: words, or as ``round`` a call or result of our tools; the last has the answer
    instead, with calls of the client's functions."""
    delta: dict[str, Any] = {"role": "assistant", "content": piece} if isinstance(piece, str) else {}
    if answer is not None and answer.calls:
        calls = [{"index": index, **_told(call)} for index, call in enumerate(answer.calls)]
        delta = {"role": "assistant", "content": None, "tool_calls": calls}
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


def _told(call: ToolCallPart) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": call.call_id, "type": "function", "function": function}


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
