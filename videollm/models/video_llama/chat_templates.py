"""The chat templates: the only place where the words around a conversation are written.

A template is given ``messages`` whose text and media are already replaced by marks, one for each stretch, so that
nothing in a user's words can act as template or as special token:

* ``message.role`` and ``message.content``, a list of parts;
* a text part has ``type: "text"``, ``text``, ``generated`` (true where the token ids of a generated answer go) and
  ``spaced`` (true where the words begin or end with a blank of their own);
* a media part has ``type`` (image, video, audio), ``video`` and ``audio`` (marks; empty where there is nothing to see
  or to hear) and ``seconds`` (one number a frame);
* ``time_sentence`` says whether the seconds are also to be written out in words;
* ``form`` says what the conversation is for: ``"chat"``, or to learn from, ``"dialogue"`` or ``"caption"``, which the
  published models were shown in other words than they are asked in;
* ``tools``, for decoders that call tools in their template's own way: JSON schemas; a call is a message's
  ``tool_calls``, what a tool gave back a message of the role ``tool``. The other templates know neither: there, both
  stand in words before the user's;
* ``cut`` may be written anywhere: what follows it is tokenised apart from what stands before it.

What stands in ``{% generation %}`` is what is learned of a conversation (a template without it: the answers and what
ends them). Turn by turn a rendered chat must be a prefix of the longer one, with the generation prompt in the place of
the answer's opening; `VideoLlamaProcessor.render` relies on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TINY = """\
{{- bos_token }}
{%- for message in messages %}
    {%- set ns = namespace(joint='') %}
    {%- if message.role == 'user' %}{{ '<user>' }}{% elif message.role == 'assistant' %}{{ '<assistant>' }}{% endif %}
    {%- for part in message.content %}
        {%- if part.type == 'text' %}
            {{- ns.joint + part.text }}
            {%- set ns.joint = '\\n' %}
        {%- else %}
            {{- part.video + part.audio }}
            {%- if time_sentence and part.video and part.seconds %}
                {{- 'frames at ' + part.seconds | join(', ') + ' s. ' }}
            {%- endif %}
        {%- endif %}
    {%- endfor %}
    {%- if message.role == 'assistant' %}{{ eos_token }}{% elif message.role == 'system' %}{{ '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}
"""
"""Of the embedded model: each turn opens with one special token, an answer closes with the end token."""

TINY_TOOLS = """\
{%- macro long(part) %}
    {%- if part.seconds and part.seconds[-1] > 28 %}
        {{- '%d:%02d long. ' % (part.seconds[-1] // 60, part.seconds[-1] % 60) }}
    {%- endif %}
{%- endmacro %}
{{- bos_token }}
{%- set ns = namespace(asking=none, turn=none, first=0, told=-1, length='', joint='') %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.asking = message %}
        {%- for part in message.content if part.type != 'text' and long(part) %}
            {%- set ns.length = long(part) %}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {%- if ns.turn != ns.asking %}{% set ns.first = loop.index0 %}{% endif %}
        {%- set ns.turn = ns.asking %}
        {%- set ns.told = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if loop.index0 == ns.told %}
        {{- '<result>' }}
        {%- set results = messages[ns.first:ns.told + 1] | selectattr('role', 'equalto', 'tool') | list %}
        {%- for result in results %}
            {%- for part in result.content if part.type != 'text' %}{{ part.video + part.audio }}{% endfor %}
        {%- endfor %}
        {{- ns.length }}
        {%- for result in results if result.content | rejectattr('type', 'equalto', 'text') | list | length == 0 %}
            {%- for part in result.content %}{{ part.text + '\\n' }}{% endfor %}
        {%- endfor %}
        {%- for part in ns.turn.content if part.type == 'text' %}
            {{- part.text + ('' if loop.last else '\\n') }}
        {%- endfor %}
    {%- elif loop.index0 > ns.told or message.role == 'system' %}
        {{- {'user': '<user>', 'assistant': '<assistant>'}.get(message.role, '') }}
        {%- set ns.joint = '' %}
        {%- for part in message.content %}
            {%- if part.type == 'text' %}
                {{- ns.joint + part.text }}
                {%- set ns.joint = '\\n' %}
            {%- else %}
                {{- part.video + part.audio + long(part) }}
            {%- endif %}
        {%- endfor %}
        {%- for call in message.tool_calls or [] %}
            {{- '<call>' + call.function.name }}
            {%- for name, value in call.function.arguments.items() if name != 'video' %}
                {{- ' ' ~ (value ~ ' s' if name in ('start_seconds', 'end_seconds') else value) }}
            {%- endfor %}
        {%- endfor %}
        {%- if message.role == 'assistant' %}{{ eos_token }}{% elif message.role == 'system' %}{{ '\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}
"""
"""Of the embedded model that calls tools: as `TINY`, with calls.

A call is an answer that opens with ``<call>``: a tool's name and its times or words, as the user said them. What it
gave back opens with ``<result>``: words, or the stretch alone, and behind it the question again, as if it were asked of
that. What was given back for a question takes the place of all that stands before it: the context has room for a film
or for what was found in it, and a model this small is led astray by frames of other scenes. Behind what is longer than
any clip of the world stands how long it is.
"""

DEMO_SYSTEM = (
    "You are able to understand the visual content that the user provides. Follow the instructions carefully and "
    "explain your answers in detail."
)

# What a media item says in the published prompts. The runs of blanks are the published ones, too. In training nothing
# followed a picture, and a video's question came directly after the seconds; in a chat there is one blank more.
_MEDIA = """\
{%- macro show(part) %}
    {%- if part.video and part.audio %}
        {{- 'Close your eyes, open your ears and you imagine only based on the sound that: ' + part.audio + '.' }}
        {{- ' ' * 17 + 'Close your ears, open your eyes and you see that <Video>' + part.video + '</Video>.' }}
        {{- ' ' * 18 + 'Now answer my question based on what you have just seen and heard.' }}
    {%- elif part.audio and part.type == 'audio' %}
        {{- 'Close your eyes, open your ears and you imagine only based on the sound that: ' + part.audio + '.' }}
    {%- elif part.type == 'image' %}
        {{- '<Image>' + part.video + part.audio + '</Image>' + (' ' if form == 'chat' else '') }}
    {%- else %}
        {{- '<Video>' + part.video + part.audio + '</Video> ' }}
        {%- if time_sentence and part.seconds and form != 'caption' %}
            {{- 'The video contains ' ~ (part.seconds | length) ~ ' frames sampled at ' }}
            {{- (part.seconds | join(', ')) + ' seconds. ' }}
        {%- endif %}
    {%- endif %}
{%- endmacro %}
{%- macro say(message) %}
    {%- set ns = namespace(before=none) %}
    {%- for part in message.content %}
        {%- set kind = 'text' if part.type == 'text' else 'image' if part.type == 'image' else 'clip' %}
        {%- if ns.before is none or (part.spaced and form != 'chat') or ns.before == 'spaced' %}
        {%- elif form == 'chat' %}
            {{- '\\n' if ns.before == 'text' else ' ' }}
        {%- elif ns.before != 'clip' or kind != 'text' %}
            {{- ' ' if form == 'caption' else '\\n' }}
        {%- endif %}
        {{- part.text if kind == 'text' else show(part) }}
        {%- set ns.before = 'spaced' if part.spaced and form != 'chat' else kind %}
    {%- endfor %}
{%- endmacro %}
"""

# Which system text goes with a chat: none where a video is heard. Without a system message the first user's media
# decide, so that a clip that is added later does not change the beginning.
_SYSTEM = (
    """\
{%- set ns = namespace(system=none, heard=false, first=true) %}
{%- for message in messages %}
    {%- if message.role == 'system' and ns.system is none %}
        {%- set ns.system = say(message) %}
    {%- elif message.role == 'user' and ns.first %}
        {%- set ns.first = false %}
        {%- for part in message.content if part.type != 'text' and part.audio %}
            {%- set ns.heard = true %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if ns.system is none and form == 'chat' %}{% set ns.system = '' if ns.heard else '"""
    + DEMO_SYSTEM
    + """' %}{% endif %}
"""
)

# A caption is learned directly behind its clip, closed by a line break; or, where the user asks for it in words, as the
# answer to them. Its own tokens are cut from those before it.
_CAPTION = """\
{%- if form == 'caption' %}
    {%- set asked = namespace(by=false) %}
    {{- bos_token }}
    {%- for message in messages %}
        {%- if message.role == 'user' %}
            {%- for part in message.content if part.type == 'text' %}
                {%- set asked.by = true %}
            {%- endfor %}
            {%- if asked.by %}
                {{- opening + say(message) + closing }}
            {%- else %}
                {%- for part in message.content %}{{ part.video + part.audio }}{% endfor %}
            {%- endif %}
        {%- elif message.role == 'assistant' %}
            {{- cut }}
            {%- generation %}{{ say(message) + (end if asked.by else '\\n') }}{% endgeneration %}
        {%- endif %}
    {%- endfor %}
{%- else %}
"""

VICUNA_V0 = (
    _MEDIA
    + _SYSTEM
    + "{%- set opening, closing, end = '###Human: ', ' ###Assistant: ', '###' %}\n"
    + _CAPTION
    + """\
    {%- set line = '' if form == 'chat' else '\\n' %}
    {{- bos_token + (ns.system or '') + ('###' if form == 'chat' else '\\n\\n') }}
    {%- for message in messages %}
        {%- if message.role == 'user' %}
            {%- if form == 'chat' %}
                {{- 'Human: ' + say(message) + '###' }}
            {%- else %}
                {%- generation %}{{ '###' }}{% endgeneration %}
                {{- 'Human: ' + say(message) + '\\n' }}
            {%- endif %}
        {%- elif message.role == 'assistant' %}
            {%- set blank = '' if message.content and message.content[0].generated else ' ' %}
            {%- if form == 'chat' %}
                {{- 'Assistant:' }}
                {%- generation %}{{ blank + say(message) + '###' }}{% endgeneration %}
            {%- else %}
                {%- generation %}{{ '###Assistant:' + blank + say(message) + '\\n' }}{% endgeneration %}
            {%- endif %}
        {%- endif %}
    {%- endfor %}
    {%- if add_generation_prompt %}
        {{- 'Assistant:' if form == 'chat' else '###Assistant:' }}
    {%- elif form != 'chat' %}
        {%- generation %}{{ '###' }}{% endgeneration %}
    {%- endif %}
{%- endif %}
"""
)
"""Of the published models on Vicuna v0 (and the Chinese ones). In dialogues to learn from, every ``###`` is learned."""

LLAMA_2_CHAT = (
    _MEDIA
    + _SYSTEM
    + """\
{%- set opening = '[INST] <<SYS>>\\n \\n<</SYS>>\\n\\n' %}
{%- set closing, end = ' [/INST] ', eos_token %}
"""
    + _CAPTION
    + """\
    {%- set turn = namespace(first=true) %}
    {%- for message in messages %}
        {%- if message.role == 'user' %}
            {{- bos_token + '[INST] ' }}
            {%- if turn.first %}
                {{- '<<SYS>>\\n' + (' ' if ns.system is none else ns.system) + '\\n<</SYS>>\\n\\n' }}
                {%- set turn.first = false %}
            {%- endif %}
            {{- say(message) + ' [/INST]' }}
        {%- elif message.role == 'assistant' %}
            {%- set blank = '' if message.content and message.content[0].generated else ' ' %}
            {%- generation %}{{ blank + say(message) + blank + eos_token }}{% endgeneration %}
        {%- endif %}
    {%- endfor %}
{%- endif %}
"""
)
"""Of the published models on Llama-2-chat."""

MEDIA_IN_WORDS = _MEDIA + "{{- say(messages[0]) }}"
"""What one message says, for decoders whose tokenizer carries a chat template that knows words only."""

OWN = "own"
"""The template that a tokenizer carries."""

KNOWS_TOOLS = re.compile(r"{[%{][^}]*\btools\b")
"""What a template that takes ``tools`` has in it."""

_TURNS = re.compile(r"#{3,}|\[/?INST\]|<</?SYS>>")


def call_in_words(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as it stands in a user's message: ``look film.mp4 12.0-16.0 s:``."""
    rest = {key: value for key, value in arguments.items() if key not in ("start_seconds", "end_seconds")}
    told = [name, *map(str, rest.values())]
    if len(rest) < len(arguments):
        ends = (arguments.get(key) for key in ("start_seconds", "end_seconds"))
        told.append("-".join(f"{end:.1f}" if isinstance(end, int | float) else str(end) for end in ends) + " s")
    return as_data(" ".join(told) + ":")


def as_data(text: str) -> str:
    """Text of a stranger in which nothing looks like the beginning or the end of a turn of a published template."""
    return _TURNS.sub(lambda found: " ".join(found[0]), text)


PUBLISHED = ("vicuna_v0", "llama_2_chat")
TEMPLATES = {"tiny": TINY, "tiny_tools": TINY_TOOLS, "vicuna_v0": VICUNA_V0, "llama_2_chat": LLAMA_2_CHAT}
