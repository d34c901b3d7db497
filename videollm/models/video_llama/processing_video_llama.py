"""Messages and clips to the tensors of `VideoLlamaForConditionalGeneration`.

Notation: B prompts, N clips in the whole batch, T frames, S audio segments, F mel bins, W fbank frames, L text tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils.chat_template_utils import render_jinja_template

from ...clips import Clip, Frames, Waveform
from ...messages import Message, Part, TextPart, ToolCallPart, ToolResultPart, assistant, user
from ..own_parts import OwnPartsProcessor
from .chat_templates import KNOWS_TOOLS, MEDIA_IN_WORDS, OWN, PUBLISHED, TEMPLATES, as_data, call_in_words
from .configuration_video_llama import VideoLlamaConfig
from .feature_extraction_video_llama import VideoLlamaFeatureExtractor
from .image_processing_video_llama import VideoLlamaImageProcessor
from .llama_tokenizer import as_published as published_tokenizer
from .tiny_tokenizer import TOOL_TOKENS

# The second form is what a template's tojson makes of the first.
_MARK = re.compile("\x00(\\d*)\x00|" + r"\\u0000(\d+)\\u0000")
_CUT = "\x00\x00"
_LEARNED = re.compile(r"{%-?\s*generation\s*-?%}")

IGNORED = -100
"""The label of a token that nothing is to be learned from."""

Form = Literal["chat", "dialogue", "caption"]
TrainingForm = Literal["dialogue", "caption"]
Branch = Literal["video", "audio"]


@dataclass(frozen=True)
class MediaSpan:
    """A run of placeholders in a prompt.

    Attributes:
        kind: what goes there.
        clip: the clip's key.
        start, length: place and number of the placeholders in ``input_ids``, tokens.
    """

    kind: Literal["video", "audio"]
    clip: str
    start: int
    length: int


@dataclass(frozen=True)
class RenderedPrompt:
    """A conversation as token ids, and where its media are."""

    input_ids: list[int]
    media: tuple[MediaSpan, ...]


@dataclass(frozen=True)
class TrainingPrompt(RenderedPrompt):
    """A conversation to learn from.

    Attributes:
        labels: as many as ``input_ids``: the id where it is to be learned, otherwise `IGNORED`.
    """

    labels: list[int]


@dataclass(frozen=True)
class _Stretch:
    """Part of a rendered conversation: words, the ids of an answer, a run of placeholders, or a cut between words.

    ``learned`` has a byte for each character of ``text``, or one for all ids: 1 where it is to be learned.
    """

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    span: MediaSpan | None = None
    is_cut: bool = False
    from_user: bool = False
    learned: bytes = b""


class VideoLlamaProcessor(OwnPartsProcessor):
    """Everything between `videollm.clips` / `videollm.messages` and tensors.

    Attributes:
        frame_sampling, sound_sampling: which frames and stretches of sound the model was trained on: keyword arguments
            of ``videollm.media.sampling.FrameSampling`` and ``SoundSampling``, as plain data.
        video_token_id, audio_token_id: the placeholders.
        num_video_query_tokens, num_audio_query_tokens: placeholders a clip takes; 0 for sound: the model has no ear.
        video_token, audio_token: how placeholders are written in `prompt_text`.
        time_sentence: also write the seconds of the frames into the prompt.
        separate_text: tokenise the user's words apart from the template's, so that prompts are exact prefixes of each
            other. The published models were trained on text tokenised in one piece between media: False there.
        words_only_template: the chat template is one that came with a decoder and knows no media: what a message says
            and shows is put into words before it.
    """

    own_parts: ClassVar[dict[str, type]] = {
        "image_processor": VideoLlamaImageProcessor,
        "feature_extractor": VideoLlamaFeatureExtractor,
    }

    def __init__(
        self,
        image_processor: VideoLlamaImageProcessor,
        feature_extractor: VideoLlamaFeatureExtractor,
        tokenizer: Any,
        chat_template: str | None = None,
        frame_sampling: dict[str, Any] | None = None,
        sound_sampling: dict[str, Any] | None = None,
        video_token_id: int = 32000,
        audio_token_id: int = 32001,
        num_video_query_tokens: int = 32,
        num_audio_query_tokens: int = 8,
        video_token: str = "<ImageHere>",
        audio_token: str = "<ImageHere>",
        time_sentence: bool = True,
        separate_text: bool = False,
        words_only_template: bool = False,
    ) -> None:
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=chat_template)
        self.frame_sampling = dict(frame_sampling or {"strategy": "uniform", "frames": 8})
        length_seconds = feature_extractor.segment_seconds
        self.sound_sampling = dict(
            sound_sampling or {"strategy": "published", "segments": 8, "length_seconds": length_seconds}
        )
        self.video_token_id = video_token_id
        self.audio_token_id = audio_token_id
        self.num_video_query_tokens = num_video_query_tokens
        self.num_audio_query_tokens = num_audio_query_tokens
        self.video_token = video_token
        self.audio_token = audio_token
        self.time_sentence = time_sentence
        self.separate_text = separate_text
        self.words_only_template = words_only_template

    @classmethod
    def for_model(
        cls,
        config: VideoLlamaConfig,
        tokenizer: Any,
        *,
        template: str,
        as_published: bool = False,
        segment_seconds: float = 2.0,
        **options: Any,
    ) -> VideoLlamaProcessor:
        """A processor whose sizes are those of a model.

        Args:
            config: the model's.
            tokenizer: the decoder's. With a published template it is given the published tokenisation.
            template: a name in `chat_templates.TEMPLATES`; or ``"own"``: that of the tokenizer, for newer decoders.
            as_published: reproduce the published preprocessing, its slips included.
            segment_seconds: length of a segment of sound.
            options: further arguments of the class.

        Raises:
            ValueError: for an unknown template, or one's own where the tokenizer has none.
        """
        if template not in (OWN, *TEMPLATES):
            raise ValueError(f"no chat template {template!r}; choose one of {', '.join(sorted((OWN, *TEMPLATES)))}")
        if template == OWN and not getattr(tokenizer, "chat_template", None):
            raise ValueError(f"this tokenizer has no chat template; choose one of {', '.join(sorted(TEMPLATES))}")
        if template in PUBLISHED:
            tokenizer = published_tokenizer(tokenizer)
        if as_published:
            size = config.vision_config.image_size
            options.setdefault("frame_sampling", {"strategy": "uniform", "frames": 8, "squash_px": size})
        audio = config.audio_config
        shape = {} if audio is None else {"num_mel_bins": audio.num_mel_bins, "target_length": audio.target_length}
        return cls(
            VideoLlamaImageProcessor(size=config.vision_config.image_size, as_published=as_published),
            VideoLlamaFeatureExtractor(segment_seconds=segment_seconds, as_published=as_published, **shape),
            tokenizer,
            chat_template=tokenizer.chat_template if template == OWN else TEMPLATES[template],
            words_only_template=template == OWN,
            video_token_id=config.video_token_id,
            audio_token_id=config.audio_token_id,
            num_video_query_tokens=config.num_video_query_tokens,
            num_audio_query_tokens=config.num_audio_query_tokens if config.has_audio else 0,
            **options,
        )

    # ---- media

    def process_frames(self, frames: Frames) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames of one clip.

        Returns:
            pixel_values float32 ``(T, 3, size, size)`` and their seconds float32 ``(T,)``.
        """
        still = len(frames) == 1 and frames.duration_seconds == 0
        return self.image_processor(frames.pixels, still=still), torch.from_numpy(frames.seconds).float()

    def process_sound(
        self, waveforms: Sequence[Waveform], windows_seconds: Sequence[tuple[float, float]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sound of one clip, one segment a window.

        Returns:
            audio_values float32 ``(S, 1, F, W)`` and the start of each segment, seconds, float32 ``(S,)``.
        """
        starts = torch.tensor([start for start, _ in windows_seconds], dtype=torch.float32)
        return self.feature_extractor(waveforms, windows_seconds), starts

    # ---- words

    def _stretches(
        self,
        messages: Sequence[Message],
        clips: Mapping[str, Clip],
        generation: bool,
        form: Form = "chat",
        branch: Branch | None = None,
        learned: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> list[_Stretch]:
        """The conversation cut into stretches of words, ids and media; ``learned`` says whether to look at those."""
        marked: list[_Stretch] = []

        def mark(stretch: _Stretch) -> str:
            marked.append(stretch)
            return f"\x00{len(marked) - 1}\x00"

        conversation: list[dict[str, Any]] = []
        for message in self._with_tools_in_words(messages):
            said: dict[str, Any] = {"role": message.role}
            calls = [part for part in message.parts if isinstance(part, ToolCallPart) and part.token_ids is None]
            if calls:
                said["tool_calls"] = [self._call(part, mark) for part in calls]
            said["content"] = [self._describe(part, clips, mark, branch) for part in message.parts if part not in calls]
            conversation.append(said)
        rendered, spans = self._fill_in(conversation, generation, form, learned, tools)
        flags = bytearray(len(rendered))
        for start, end in spans:
            flags[start:end] = b"\x01" * (end - start)
        stretches: list[_Stretch] = []
        place = 0
        for found in _MARK.finditer(rendered):
            stretches.append(_Stretch(rendered[place : found.start()], learned=bytes(flags[place : found.start()])))
            place = found.end()
            if found[1] == "":
                stretches.append(_Stretch(is_cut=True))
                continue
            one = marked[int(found[1] or found[2])]
            if found[2] is not None:
                one = replace(one, text=json.dumps(one.text, ensure_ascii=False)[1:-1])
            flag = bytes(flags[found.start() : found.start() + 1])
            count = 1 if one.token_ids is not None else len(one.text)
            stretches.append(replace(one, from_user=True, learned=flag * count))
        return [*stretches, _Stretch(rendered[place:], learned=bytes(flags[place:]))]

    @property
    def calls_tools(self) -> bool:
        """Whether the decoder's chat template has a form of its own for tools, in which the model calls them."""
        template = self.chat_template
        if not isinstance(template, str):
            return False
        return bool(self.call_token_ids) or (self.words_only_template and KNOWS_TOOLS.search(template) is not None)

    @cached_property
    def call_token_ids(self) -> tuple[int, ...]:
        """What opens a call and what opens its result, where both are tokens, as `tiny` has them; otherwise nothing.

        Nobody but the model says the first, and nobody but the template the second.
        """
        template = self.chat_template
        if self.words_only_template or not isinstance(template, str):
            return ()
        known = self.tokenizer.get_vocab() if all(token in template for token in TOOL_TOKENS) else {}
        return tuple(known[token] for token in TOOL_TOKENS if token in known)

    def _with_tools_in_words(self, messages: Sequence[Message]) -> list[Message]:
        """Calls and their results as words: those of the person, and, where the template has no form for them, all.

        An assistant's call and what it gave back then stand before the words of the question that they are for. A model
        that was never told seconds in words is shown a stretch as it is shown any clip, without a word about it.
        """
        shown = [message for message in messages if message.role == "tool" and message.media]
        silent = set() if self.time_sentence else {part.call_id for one in shown for part in _called(one)}
        found: list[Message] = []
        place = 0
        for message in messages:
            if not _called(message):
                found.append(message)
                texts = (at for at, part in enumerate(message.parts) if isinstance(part, TextPart))
                place = next(texts, len(message.parts))
            elif message.role == "user":
                found.append(replace(message, parts=_in_words(message.parts)))
                place = len(message.media)
            elif self.calls_tools:
                found.append(message)
            elif not found or found[-1].role != "user":
                raise ValueError("a call, and what a tool gave back, follow a user's message; found none before them")
            else:
                kept = [part for part in message.parts if getattr(part, "call_id", None) not in silent]
                words, asked = _in_words(kept), found[-1]
                found[-1] = replace(asked, parts=(*asked.parts[:place], *words, *asked.parts[place:]))
                place += len(words)
        return found

    @staticmethod
    def _call(part: ToolCallPart, mark: Any) -> dict[str, Any]:
        """A call that was not generated here, as a template sees it. Words of it are data, however they are wrapped."""
        arguments = {
            name: value if isinstance(value, int | float) else mark(_Stretch(text=str(value)))
            for name, value in part.arguments.items()
            if name.isidentifier()
        }
        function = {"name": mark(_Stretch(text=part.name)), "arguments": arguments}
        return {"type": "function", "id": part.call_id, "function": function}

    def _fill_in(
        self,
        conversation: list[dict[str, Any]],
        generation: bool,
        form: Form,
        learned: bool,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> tuple[str, list[tuple[int, int]]]:
        """The conversation in the words of the template, and from where to where it is to be learned (characters)."""
        variables = {
            **self.tokenizer.special_tokens_map,
            "time_sentence": self.time_sentence,
            "form": form,
            "cut": _CUT,
        }
        template = self.chat_template
        if not template:
            raise ValueError("this processor has no chat template; make it with VideoLlamaProcessor.for_model")
        if self.words_only_template:
            said = render_jinja_template(
                [[message] for message in conversation], chat_template=MEDIA_IN_WORDS, **variables
            )
            conversation = [{**message, "content": words} for message, words in zip(conversation, said[0], strict=True)]

        def write(
            messages: list[dict[str, Any]], prompt: bool, track: bool = False
        ) -> tuple[str, list[tuple[int, int]]]:
            # Typed by the library as one string; it is the texts and, for each, where its generation blocks are.
            written: Any = render_jinja_template(
                [messages],
                tools=None if tools is None else list(tools),
                chat_template=template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=track,
                **variables,
            )
            texts, spans = written
            return texts[0], spans[0] if track else []

        if not learned:
            return write(conversation, generation)
        if _LEARNED.search(template):
            return write(conversation, generation, track=True)
        whole, _ = write(conversation, generation)
        spans = []
        for index, message in enumerate(conversation):
            if message["role"] == "assistant":
                before, after = write(conversation[:index], True)[0], write(conversation[: index + 1], False)[0]
                if not (after.startswith(before) and whole.startswith(after)):
                    raise ValueError(
                        "what this chat template writes changes with later turns, so that it is not known which words "
                        "are an answer's; put its answers in {% generation %}"
                    )
                spans.append((len(before), len(after)))
        return whole, spans

    def _describe(self, part: Any, clips: Mapping[str, Clip], mark: Any, branch: Branch | None) -> dict[str, Any]:
        """A part of a message as a template sees it."""
        if isinstance(part, TextPart):
            stretch = _Stretch(text=part.text, token_ids=part.token_ids)
            spaced = part.text[:1].isspace() or part.text[-1:].isspace()
            return {"type": "text", "text": mark(stretch), "generated": part.token_ids is not None, "spaced": spaced}
        if isinstance(part, ToolCallPart):
            return {
                "type": "text",
                "text": mark(_Stretch(token_ids=part.token_ids)),
                "generated": True,
                "spaced": False,
            }
        if isinstance(part, ToolResultPart):
            return {"type": "text", "text": mark(_Stretch(as_data(part.content))), "generated": False, "spaced": False}
        if part.clip not in clips:
            known = ", ".join(map(repr, clips)) or "none"
            raise ValueError(f"a message shows the clip {part.clip!r}, but the clips given are {known}; give it, too")
        clip = clips[part.clip]
        video = audio = ""
        seconds: list[float] = []
        if clip.frames is not None and part.type != "audio":
            seconds = [round(float(second), 1) for second in clip.frames.seconds]
            if branch == "audio":
                audio = mark(_Stretch(span=MediaSpan("audio", part.clip, 0, self.num_audio_query_tokens)))
            else:
                video = mark(_Stretch(span=MediaSpan("video", part.clip, 0, self.num_video_query_tokens)))
        if clip.waveforms and part.type != "image" and self.num_audio_query_tokens and branch is None:
            audio = mark(_Stretch(span=MediaSpan("audio", part.clip, 0, self.num_audio_query_tokens)))
        if not video and not audio:
            have = " and ".join(["frames"] * (clip.frames is not None) + ["sound"] * bool(clip.waveforms))
            raise ValueError(
                f"the clip {part.clip!r} is shown as {part.type}, but it has only {have}, "
                f"{'and' if self.num_audio_query_tokens else 'and the model has no ear: it'} gives nothing to the model"
            )
        kind = "image" if part.type == "video" and clip.kind == "image" else part.type
        kind = "audio" if clip.frames is None else kind
        return {"type": kind, "video": video, "audio": audio, "seconds": seconds}

    def prompt_text(
        self,
        messages: Sequence[Message],
        clips: Mapping[str, Clip],
        add_generation_prompt: bool = True,
        form: Form = "chat",
        branch: Branch | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> str:
        """The prompt as one string for reading, each clip written as one placeholder; for the rest see `render`."""
        placeholder = {"video": self.video_token, "audio": self.audio_token}
        return "".join(
            stretch.text if stretch.span is None else placeholder[stretch.span.kind]
            for stretch in self._stretches(messages, clips, add_generation_prompt, form, branch, tools=tools)
        )

    @cached_property
    def stop_sequences(self) -> list[tuple[int, ...]]:
        """Ids that end an answer besides the end token: the words with which the template closes one.

        The same words are other ids at the start of a stretch than behind a word; both ways are listed.
        """
        answer = _Stretch(token_ids=(0,))
        stretches = self._stretches([user("?"), assistant("", answer.token_ids)], {}, False)
        place = next(index for index, stretch in enumerate(stretches) if stretch.token_ids is not None)
        closing = stretches[place + 1].text.strip()
        if not closing:
            return []
        word, behind = self._tokenise("a", words=False)[0], self._tokenise("a" + closing, words=False)[0]
        ways = [self._tokenise(closing, words=False)[0]]
        if behind[: len(word)] == word:
            ways.append(behind[len(word) :])
        # The end token is named by the model's config, where it can be changed.
        return [ids for ids in dict.fromkeys(map(tuple, ways)) if ids and ids != (self.tokenizer.eos_token_id,)]

    def _tokenise(self, text: str, words: bool, learned: bytes | None = None) -> tuple[list[int], list[bool]]:
        """Ids of a stretch of text, and which are learned; in a user's words the names of special tokens are words."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=words, return_offsets_mapping=learned is not None
        )
        ids = encoded["input_ids"]
        if learned is None:
            return ids, [False] * len(ids)
        # A token belongs to its last character: the blank that a word carries in front may be the template's.
        return ids, [bool(learned[max(end - 1, 0)]) for _, end in encoded["offset_mapping"]]

    def render(
        self,
        messages: Sequence[Message],
        clips: Mapping[str, Clip],
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> RenderedPrompt:
        """A conversation as token ids.

        Generated answers go in as the ids that were generated, never tokenised again; so the prompt of a conversation,
        its answer and the end-of-turn token are together a prefix of the prompt of the next turn.

        Args:
            messages: the conversation so far.
            clips: the clips that messages name.
            add_generation_prompt: end with the opening of an answer.
            tools: schemas of what the model may call, for a template that `calls_tools`; others do not tell of them.

        Raises:
            ValueError: for a clip that is missing or has nothing for this model, or a call without a question.
        """
        stretches = self._stretches(messages, clips, add_generation_prompt, tools=tools)
        ids, spans, _ = self._encode(stretches, labels=False)
        return RenderedPrompt(ids, spans)

    def render_for_training(
        self,
        messages: Sequence[Message],
        clips: Mapping[str, Clip],
        form: TrainingForm = "dialogue",
        branch: Branch | None = None,
        max_tokens: int | None = None,
        max_learned_tokens: int | None = None,
    ) -> TrainingPrompt:
        """A conversation as token ids and the labels of what is to be learned of it.

        Args:
            messages: questions and answers.
            clips: the clips that messages name.
            form: ``"dialogue"`` to learn answers, ``"caption"`` to learn what is said of one clip, with or without a
                question. Only the published templates tell the two apart.
            branch: ``"video"`` or ``"audio"`` shows the frames of clips, and no sound, to that branch alone. The
                published audio branch was trained so: frames, seen by ImageBind, stand in for the sound.
            max_tokens: cut the end of what is longer.
            max_learned_tokens: cut where so many tokens are learned, as captions were.

        Raises:
            ValueError: as `render`; or if the cut would go through a clip.

        Source: the published training code of Video-LLaMA: which tokens its masks leave.
        """
        if branch == "audio" and not self.num_audio_query_tokens:
            raise ValueError("the frames are to be shown to the audio branch, but the model has none")
        stretches = self._stretches(messages, clips, False, form, branch, learned=True)
        ids, spans, learned = self._encode(stretches, labels=True)
        end = len(ids) if max_tokens is None else max_tokens
        if max_learned_tokens is not None:
            places = [place for place, flag in enumerate(learned) if flag]
            end = min([end, *places[max_learned_tokens : max_learned_tokens + 1]])
        if any(span.start + span.length > end for span in spans):
            raise ValueError(f"a cut after {end} tokens goes through a clip's placeholders; allow more tokens")
        labels = [token if flag else IGNORED for token, flag in zip(ids, learned, strict=True)]
        return TrainingPrompt(ids[:end], spans, labels[:end])

    def _encode(
        self, stretches: Sequence[_Stretch], labels: bool
    ) -> tuple[list[int], tuple[MediaSpan, ...], list[bool]]:
        """Ids, where the media are, and which ids are to be learned (looked at only for ``labels``)."""
        specials = self.tokenizer.all_special_tokens
        ids: list[int] = []
        learned: list[bool] = []
        spans: list[MediaSpan] = []
        joined, joined_learned = "", b""

        def put(text: str, flags: bytes, words: bool) -> None:
            found, kept = self._tokenise(text, words, flags if labels else None)
            ids.extend(found)
            learned.extend(kept)

        def flush() -> None:
            nonlocal joined, joined_learned
            if joined:
                put(joined, joined_learned, words=False)
                joined, joined_learned = "", b""

        for stretch in stretches:
            if stretch.span is not None:
                flush()
                token = self.video_token_id if stretch.span.kind == "video" else self.audio_token_id
                spans.append(MediaSpan(stretch.span.kind, stretch.span.clip, len(ids), stretch.span.length))
                ids += [token] * stretch.span.length
                learned += [False] * stretch.span.length
            elif stretch.token_ids is not None:
                flush()
                ids += stretch.token_ids
                learned += [bool(stretch.learned[0])] * len(stretch.token_ids)
            elif stretch.is_cut:
                flush()
            elif stretch.from_user and (self.separate_text or any(special in stretch.text for special in specials)):
                flush()
                put(stretch.text, stretch.learned, words=True)
            elif self.separate_text and stretch.text:
                put(stretch.text, stretch.learned, words=False)
            else:
                joined += stretch.text
                joined_learned += stretch.learned
        flush()
        return ids, tuple(spans), learned

    # ---- batches

    def collate_prompts(
        self,
        prompts: Sequence[Sequence[int]],
        padding: str = "left",
        labels: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Pad ids to one length.

        Args:
            prompts: token ids, B rows.
            padding: ``"left"`` to generate, ``"right"`` to train.
            labels: as long as the prompts, row by row.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``(B, L)``; and ``labels``, likewise, where they are given.
        """
        if padding not in ("left", "right"):
            raise ValueError(f"padding is 'left' or 'right', found {padding!r}")
        longest = max(map(len, prompts))
        input_ids = torch.full((len(prompts), longest), self.tokenizer.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        targets = torch.full_like(input_ids, IGNORED)
        for row, ids in enumerate(prompts):
            place = slice(longest - len(ids), longest) if padding == "left" else slice(0, len(ids))
            input_ids[row, place] = torch.tensor(ids, dtype=torch.long)
            attention_mask[row, place] = 1
            if labels is not None:
                targets[row, place] = torch.tensor(labels[row], dtype=torch.long)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        return batch if labels is None else {**batch, "labels": targets}

    def collate_media(
        self, videos: Sequence[tuple[torch.Tensor, torch.Tensor]], sounds: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Pad clips to one number of frames and of segments.

        Args:
            videos: results of `process_frames`, in order of appearance.
            sounds: results of `process_sound`, in order of appearance.

        Returns:
            ``pixel_values (N, T, 3, H, W)``, ``frame_mask (N, T)``, ``frame_seconds (N, T)``, and ``audio_values
            (N, S, 1, F, W)``, ``segment_mask (N, S)``, ``segment_seconds (N, S)``; absent where there are none.
        """
        out: dict[str, torch.Tensor] = {}
        for items, names in (
            (videos, ("pixel_values", "frame_mask", "frame_seconds")),
            (sounds, ("audio_values", "segment_mask", "segment_seconds")),
        ):
            if not items:
                continue
            lengths = torch.tensor([len(seconds) for _, seconds in items])
            values = [rows for rows, _ in items]
            out[names[0]] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
            out[names[1]] = torch.arange(int(lengths.max())) < lengths[:, None]
            out[names[2]] = torch.nn.utils.rnn.pad_sequence([seconds for _, seconds in items], batch_first=True)
        return out

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]: messages are this processor's one input
        self,
        conversations: Sequence[Message] | Sequence[Sequence[Message]],
        clips: Mapping[str, Clip] | Sequence[Mapping[str, Clip]] = (),
        padding: str = "left",
        add_generation_prompt: bool = True,
    ) -> BatchFeature:
        """A batch for ``forward`` or ``generate``.

        Args:
            conversations: one list of messages, or B of them.
            clips: the clips that messages name: one mapping for all conversations, or one each.
            padding: ``"left"`` to generate, ``"right"`` to train.
            add_generation_prompt: end each prompt with the opening of an answer.

        Returns:
            what `collate_prompts` and `collate_media` return. A clip that is shown twice is processed once.

        Raises:
            ValueError: see `render`.
        """
        if not conversations:
            raise ValueError("a batch needs at least one conversation, found none")
        batch: list[Any] = [conversations] if isinstance(conversations[0], Message) else list(conversations)
        each: list[Any] = [clips or {}] * len(batch) if isinstance(clips, Mapping) or not clips else list(clips)
        videos, sounds, prompts = [], [], []
        done: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] = {}
        for messages, known in zip(batch, each, strict=True):
            prompt = self.render(messages, known, add_generation_prompt)
            prompts.append(prompt.input_ids)
            for span in prompt.media:
                clip = known[span.clip]
                key = (span.kind, id(clip))
                if key not in done:
                    done[key] = (
                        self.process_frames(clip.frames)
                        if span.kind == "video"
                        else self.process_sound(clip.waveforms, clip.windows_seconds)
                    )
                (videos if span.kind == "video" else sounds).append(done[key])
        return BatchFeature({**self.collate_prompts(prompts, padding), **self.collate_media(videos, sounds)})

    @property
    def model_input_names(self) -> list[str]:
        return [
            "input_ids", "attention_mask", "pixel_values", "frame_mask", "frame_seconds",
            "audio_values", "segment_mask", "segment_seconds",
        ]  # fmt: skip


def _called(message: Message) -> list[ToolCallPart | ToolResultPart]:
    return [part for part in message.parts if isinstance(part, ToolCallPart | ToolResultPart)]


def _in_words(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Calls and results among parts as text."""
    said: list[Part] = []
    for part in parts:
        if isinstance(part, ToolCallPart):
            said.append(TextPart(call_in_words(part.name, part.arguments)))
        elif isinstance(part, ToolResultPart):
            said.append(TextPart(as_data(part.content)))
        else:
            said.append(part)
    return tuple(said)
