"""How turn two is fast: keys and values of the longest prefix that two prompts share are kept, and so are features.

A prompt is compared position by position. A text position is its token id; a media position is the clip's content
hash and the row of its features, since the placeholder ids of two different clips are the same number. So an edit of
turn one, an undone turn, or another clip in the same place reuses exactly what did not change, and nothing else.

Notation: L positions of a prompt, T frames, S audio segments, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from videollm.clips import Clip

Position = int | tuple[str, int]
"""A token id, or (media key, row of the clip's features)."""

ENCODED_AT_ONCE = 8
"""Frames, or audio segments, in one pass of an encoder."""


def prompt_positions(input_ids: Sequence[int], media: Iterable[tuple[int, int, str]]) -> list[Position]:
    """What each position of a prompt holds.

    Args:
        input_ids: L token ids; those under media are placeholders, whose value does not matter.
        media: (start, length, key) of each span of media rows; equal keys mean equal features.

    Returns:
        L positions.

    Raises:
        ValueError: a span reaches outside the prompt.
    """
    positions: list[Position] = list(input_ids)
    for start, length, key in media:
        if start < 0 or start + length > len(positions):
            raise ValueError(f"media span {start}+{length} lies outside a prompt of {len(positions)} positions")
        positions[start : start + length] = [(key, row) for row in range(length)]
    return positions


def common_prefix(a: Sequence[Position], b: Sequence[Position]) -> int:
    """How many positions at the start of two prompts are equal."""
    limit = min(len(a), len(b))
    return next((i for i in range(limit) if a[i] != b[i]), limit)


class KeyValueCache:
    """Keys and values of one conversation, and what they were computed from.

    Attributes:
        positions: what each cached position holds. A forward pass appends to it when it has ended; one that failed
            leaves states that are longer than this, which `keep_common_prefix` crops before the next.
        states: the library's cache. All layers keep everything (no sliding window), so that any of it can be cropped.
    """

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.states = DynamicCache()

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        tensors = (getattr(layer, name, None) for layer in self.states.layers for name in ("keys", "values"))
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))

    def clear(self) -> None:
        """Forgets everything."""
        self.positions = []
        self.states = DynamicCache()

    def keep_common_prefix(self, positions: Sequence[Position]) -> int:
        """Crops to what a new prompt shares with the cached one, and returns how many positions that is.

        At least the last position of the prompt is left to compute, because its logits are needed; and a clip's rows
        are kept all or not at all, because its features are put into the prompt as one block.
        """
        keep = min(common_prefix(self.positions, positions), len(positions) - 1)
        while 0 < keep < len(positions) and _inside_media(positions, keep):
            keep -= 1
        self.truncate(keep)
        return len(self)

    def truncate(self, length: int) -> None:
        """Keeps the first ``length`` positions, whatever an interrupted forward pass has left in the states.

        An interrupt can leave the first layers longer than the last, or a layer's keys longer than its values: each
        tensor is cut by its own length, and a tensor that is too short makes the whole cache start afresh.
        """
        if length == 0:
            self.clear()
            return
        tensors = [(layer, name) for layer in self.states.layers for name in ("keys", "values")]
        if not tensors or any(getattr(layer, name).shape[-2] < length for layer, name in tensors):
            self.clear()
            return
        for layer, name in tensors:
            states = getattr(layer, name)
            if states.shape[-2] > length:
                setattr(layer, name, states[..., :length, :])
        del self.positions[length:]


def _inside_media(positions: Sequence[Position], index: int) -> bool:
    """Whether a cut before ``index`` would fall between two rows of one clip."""
    here, before = positions[index], positions[index - 1]
    return isinstance(here, tuple) and isinstance(before, tuple) and here[0] == before[0] and here[1] == before[1] + 1


class EncodedMedia:
    """The soft tokens of every clip that was shown, so that each is encoded once, by whatever name and however often.

    May be given to several sessions of one model.
    """

    def __init__(self) -> None:
        self._features: dict[str, torch.Tensor] = {}

    @staticmethod
    def key(processor: Any, clip: Clip, kind: str) -> str:
        """What the features depend on: the clip's content, the branch (video or audio), the processor's settings."""
        parts = (getattr(processor, name, None) for name in ("image_processor", "feature_extractor"))
        settings = repr([part.to_dict() if part is not None else None for part in parts])
        return f"{clip.content_hash}/{kind}/{settings}"

    def __contains__(self, key: str) -> bool:
        return key in self._features

    @property
    def nbytes(self) -> int:
        """Memory of all rows."""
        return sum(rows.nbytes for rows in self._features.values())

    def clear(self) -> None:
        """Forgets everything."""
        self._features.clear()

    @torch.inference_mode()
    def get(self, model: Any, processor: Any, clip: Clip, kind: str) -> torch.Tensor:
        """The clip's rows (Q, D) for the decoder, in the model's dtype; computed the first time.

        Frames pass the encoder a few at a time, so that memory does not grow with their number.

        Raises:
            ValueError: the clip has nothing of that kind.
        """
        key = self.key(processor, clip, kind)
        if key not in self._features:
            if kind == "video" and clip.frames is not None:
                pixels, seconds = processor.process_frames(clip.frames)
                pixels, seconds = _on(model, pixels), torch.as_tensor(seconds, device=model.device)
                states = torch.cat([model.encode_frames(chunk) for chunk in pixels.split(ENCODED_AT_ONCE)])
                rows = model.get_video_features(frame_seconds=seconds[None], frame_states=states[None])
            elif kind == "audio" and clip.waveforms is not None:
                values, seconds = processor.process_sound(clip.waveforms, clip.windows_seconds)
                values, seconds = _on(model, values), torch.as_tensor(seconds, device=model.device)
                states = torch.cat([model.encode_audio_segments(chunk) for chunk in values.split(ENCODED_AT_ONCE)])
                rows = model.get_audio_features(segment_seconds=seconds[None], segment_states=states[None])
            else:
                raise ValueError(f"{clip.name} has no {kind}")
            self._features[key] = rows[0]
        return self._features[key]


def _on(model: Any, values: Any) -> torch.Tensor:
    return torch.as_tensor(values).to(device=model.device, dtype=model.dtype)
