"""Messages and clips to the tensors of `VideoLlamaForConditionalGeneration`.

Notation: B prompts, N clips in the whole batch, T frames, S audio segments, F mel bins, W fbank frames, L text tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from ...clips import Clip, Frames, Waveform
from ...messages import MediaPart, Message, TextPart
from .chat_templates import TEMPLATES
from .configuration_video_llama import VideoLlamaConfig
from .feature_extraction_video_llama import VideoLlamaFeatureExtractor
from .image_processing_video_llama import VideoLlamaImageProcessor

_MARK = re.compile("\x00(\\d+)\x00")


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
class _Stretch:
    """What a mark in a rendered template stands for: words, the ids of an answer, or a run of placeholders."""

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    span: MediaSpan | None = None


class VideoLlamaProcessor(ProcessorMixin):
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
    """

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
            tokenizer: the decoder's.
            template: a name in `chat_templates.TEMPLATES`.
            as_published: reproduce the published preprocessing, its slips included.
            segment_seconds: length of a segment of sound.
            options: further arguments of the class.

        Raises:
            ValueError: for an unknown template.
        """
        if template not in TEMPLATES:
            raise ValueError(f"no chat template {template!r}; choose one of {', '.join(sorted(TEMPLATES))}")
        audio = config.audio_config
        shape = {} if audio is None else {"num_mel_bins": audio.num_mel_bins, "target_length": audio.target_length}
        return cls(
            VideoLlamaImageProcessor(size=config.vision_config.image_size, as_published=as_published),
            VideoLlamaFeatureExtractor(segment_seconds=segment_seconds, as_published=as_published, **shape),
            tokenizer,
            chat_template=TEMPLATES[template],
            video_token_id=config.video_token_id,
            audio_token_id=config.audio_token_id,
            num_video_query_tokens=config.num_video_query_tokens,
            num_audio_query_tokens=config.num_audio_query_tokens if config.has_audio else 0,
            **options,
        )

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        # Both are our own classes and stand in processor_config.json; the library would look them up over the hub.
        saved = processor_dict or {}
        return [
            VideoLlamaImageProcessor(**saved.get("image_processor", {})),
            VideoLlamaFeatureExtractor(**saved.get("feature_extractor", {})),
            cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **kwargs),
        ]

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

    def _stretches(self, messages: Sequence[Message], clips: Mapping[str, Clip], generation: bool) -> list[_Stretch]:
        """The conversation cut into stretches that are tokenised each by itself."""
        marked: list[_Stretch] = []

        def mark(stretch: _Stretch) -> str:
            marked.append(stretch)
            return f"\x00{len(marked) - 1}\x00"

        conversation = [
            {"role": message.role, "content": [self._describe(part, clips, mark) for part in message.parts]}
            for message in messages
        ]
        rendered = self.tokenizer.apply_chat_template(
            conversation,
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=generation,
            time_sentence=self.time_sentence,
        )
        pieces = _MARK.split(rendered)
        stretches = [_Stretch(text=pieces[0])]
        for index, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            stretches += [marked[int(index)], _Stretch(text=literal)]
        return stretches

    def _describe(self, part: Any, clips: Mapping[str, Clip], mark: Any) -> dict[str, Any]:
        """A part of a message as a template sees it."""
        if isinstance(part, TextPart):
            stretch = _Stretch(text=part.text, token_ids=part.token_ids)
            return {"type": "text", "text": mark(stretch), "generated": part.token_ids is not None}
        if not isinstance(part, MediaPart):
            raise ValueError(f"this model's chat template cannot show a {part.type} part; show text and media only")
        if part.clip not in clips:
            known = ", ".join(map(repr, clips)) or "none"
            raise ValueError(f"a message shows the clip {part.clip!r}, but the clips given are {known}; give it, too")
        clip = clips[part.clip]
        video = audio = ""
        seconds: list[float] = []
        if clip.frames is not None and part.type != "audio":
            span = MediaSpan("video", part.clip, 0, self.num_video_query_tokens)
            video = mark(_Stretch(span=span))
            seconds = [round(float(second), 1) for second in clip.frames.seconds]
        if clip.waveforms and part.type != "image" and self.num_audio_query_tokens:
            audio = mark(_Stretch(span=MediaSpan("audio", part.clip, 0, self.num_audio_query_tokens)))
        if not video and not audio:
            have = " and ".join(["frames"] * (clip.frames is not None) + ["sound"] * bool(clip.waveforms))
            raise ValueError(
                f"the clip {part.clip!r} is shown as {part.type}, but it has only {have}, "
                f"{'and' if self.num_audio_query_tokens else 'and the model has no ear: it'} gives nothing to the model"
            )
        kind = "image" if part.type == "video" and clip.kind == "image" else part.type
        return {"type": kind, "video": video, "audio": audio, "seconds": seconds}

    def prompt_text(
        self, messages: Sequence[Message], clips: Mapping[str, Clip], add_generation_prompt: bool = True
    ) -> str:
        """The prompt as one string for reading, each clip written as one placeholder."""
        placeholder = {"video": self.video_token, "audio": self.audio_token}
        return "".join(
            stretch.text if stretch.span is None else placeholder[stretch.span.kind]
            for stretch in self._stretches(messages, clips, add_generation_prompt)
        )

    def _tokenise(self, text: str, words: bool) -> list[int]:
        """Ids of a stretch of text; in a user's words the names of special tokens are just words."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=words)["input_ids"]

    def render(
        self, messages: Sequence[Message], clips: Mapping[str, Clip], add_generation_prompt: bool = True
    ) -> RenderedPrompt:
        """A conversation as token ids.

        Generated answers go in as the ids that were generated, never tokenised again; so the prompt of a conversation,
        its answer and the end-of-turn token are together a prefix of the prompt of the next turn.

        Args:
            messages: the conversation so far.
            clips: the clips that messages name.
            add_generation_prompt: end with the opening of an answer.

        Raises:
            ValueError: for a clip that is missing or has nothing for this model, or a part that cannot be shown.
        """
        specials = self.tokenizer.all_special_tokens
        ids: list[int] = []
        spans: list[MediaSpan] = []
        joined = ""

        def flush() -> None:
            nonlocal joined
            if joined:
                ids.extend(self._tokenise(joined, words=False))
                joined = ""

        for index, stretch in enumerate(self._stretches(messages, clips, add_generation_prompt)):
            from_user = index % 2 == 1
            if stretch.span is not None:
                flush()
                token = self.video_token_id if stretch.span.kind == "video" else self.audio_token_id
                spans.append(MediaSpan(stretch.span.kind, stretch.span.clip, len(ids), stretch.span.length))
                ids += [token] * stretch.span.length
            elif stretch.token_ids is not None:
                flush()
                ids += stretch.token_ids
            elif from_user and (self.separate_text or any(special in stretch.text for special in specials)):
                flush()
                ids += self._tokenise(stretch.text, words=True)
            elif self.separate_text:
                ids += self._tokenise(stretch.text, words=False) if stretch.text else []
            else:
                joined += stretch.text
        flush()
        return RenderedPrompt(ids, tuple(spans))

    # ---- batches

    def collate_prompts(self, prompts: Sequence[Sequence[int]], padding: str = "left") -> dict[str, torch.Tensor]:
        """Pad ids to one length.

        Args:
            prompts: token ids, B rows.
            padding: ``"left"`` to generate, ``"right"`` to train.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``(B, L)``.
        """
        if padding not in ("left", "right"):
            raise ValueError(f"padding is 'left' or 'right', found {padding!r}")
        longest = max(map(len, prompts))
        input_ids = torch.full((len(prompts), longest), self.tokenizer.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(prompts):
            place = slice(longest - len(ids), longest) if padding == "left" else slice(0, len(ids))
            input_ids[row, place] = torch.tensor(ids, dtype=torch.long)
            attention_mask[row, place] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

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
