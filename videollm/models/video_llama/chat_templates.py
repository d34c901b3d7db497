"""The chat templates: the only place where the words around a conversation are written.

A template is given ``messages`` whose text and media are already replaced by marks, one for each stretch that is
tokenised by itself, so that nothing in a user's words can act as template or as special token:

* ``message.role`` and ``message.content``, a list of parts;
* a text part has ``type: "text"``, ``text`` and ``generated`` (true where the token ids of a generated answer go);
* a media part has ``type`` (image, video, audio), ``video`` and ``audio`` (marks; empty where there is nothing to see
  or to hear) and ``seconds`` (one number a frame);
* ``time_sentence`` says whether the seconds are also to be written out in words.

Turn by turn a rendered conversation must be a prefix of the longer one, with the generation prompt in the place of the
answer's opening; `VideoLlamaProcessor.render` relies on it.
"""

from __future__ import annotations

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

DEMO_SYSTEM = (
    "You are able to understand the visual content that the user provides. Follow the instructions carefully and "
    "explain your answers in detail."
)

# What a media item says in the published prompts, and which system text goes with it: none where a video is heard. The
# runs of blanks are the published ones, too. Without a system message the first user's media decide, so that a clip
# that is added later does not change the beginning.
_PUBLISHED_PARTS = (
    """\
{%- macro show(part) %}
    {%- if part.video and part.audio %}
        {{- 'Close your eyes, open your ears and you imagine only based on the sound that: ' + part.audio + '.' }}
        {{- ' ' * 17 + 'Close your ears, open your eyes and you see that <Video>' + part.video + '</Video>.' }}
        {{- ' ' * 18 + 'Now answer my question based on what you have just seen and heard.' }}
    {%- elif part.audio %}
        {{- 'Close your eyes, open your ears and you imagine only based on the sound that: ' + part.audio + '.' }}
    {%- elif part.type == 'image' %}
        {{- '<Image>' + part.video + '</Image> ' }}
    {%- else %}
        {{- '<Video>' + part.video + '</Video> ' }}
        {%- if time_sentence and part.seconds %}
            {{- 'The video contains ' ~ (part.seconds | length) ~ ' frames sampled at ' }}
            {{- (part.seconds | join(', ')) + ' seconds. ' }}
        {%- endif %}
    {%- endif %}
{%- endmacro %}
{%- macro say(message) %}
    {%- set say_ns = namespace(joint='') %}
    {%- for part in message.content %}
        {%- if part.type == 'text' %}
            {{- say_ns.joint + part.text }}
            {%- set say_ns.joint = '\\n' %}
        {%- else %}
            {{- say_ns.joint + show(part) }}
            {%- set say_ns.joint = ' ' %}
        {%- endif %}
    {%- endfor %}
{%- endmacro %}
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
{%- if ns.system is none %}{% set ns.system = '' if ns.heard else '"""
    + DEMO_SYSTEM
    + """' %}{% endif %}
"""
)

VICUNA_V0 = (
    _PUBLISHED_PARTS
    + """\
{{- bos_token + ns.system + '###' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- 'Human: ' + say(message) + '###' }}
    {%- elif message.role == 'assistant' %}
        {{- 'Assistant:' + ('' if message.content and message.content[0].generated else ' ') + say(message) + '###' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""
)
"""Of the published models on Vicuna v0 (and the Chinese ones)."""

LLAMA_2_CHAT = (
    _PUBLISHED_PARTS
    + """\
{%- set turn = namespace(first=true) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- bos_token + '[INST] ' }}
        {%- if turn.first %}{{ '<<SYS>>\\n' + ns.system + '\\n<</SYS>>\\n\\n' }}{% set turn.first = false %}{% endif %}
        {{- say(message) + ' [/INST]' }}
    {%- elif message.role == 'assistant' %}
        {{- ('' if message.content and message.content[0].generated else ' ') + say(message) }}
        {{- ('' if message.content and message.content[0].generated else ' ') + eos_token }}
    {%- endif %}
{%- endfor %}
"""
)
"""Of the published models on Llama-2-chat."""

TEMPLATES = {"tiny": TINY, "vicuna_v0": VICUNA_V0, "llama_2_chat": LLAMA_2_CHAT}
