"""How turn two is fast: keys and values of the longest prefix that two prompts share are kept, and so are features.

A prompt is compared position by position. A text position is its token id; a media position is the clip's content
hash and the row of its features, since the placeholder ids of two different clips are the same number. So an edit of
turn one, an undone turn, or another clip in the same place reuses exactly what did not change, and nothing else.

Answers that are computed together lend their keys and values to a `CacheBatch`, and take them back when they end.

Notation: L positions of a prompt, T frames, S audio segments, Q queries, D width, B rows of a batch, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from videollm.clips import Clip

Position = int | tuple[str, int]
"""A token id, or (media key, row of the clip's features)."""

ENCODED_AT_ONCE = 8
"""Frames, or audio segments, in one pass of an encoder."""

COLUMNS_AT_ONCE = 128
"""A batch of caches grows by so many positions, so that it is copied only now and then."""


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
    """

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self._states = DynamicCache()
        self._batch: CacheBatch | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def states(self) -> DynamicCache:
        """The library's cache, taken back from the batch that has it. All layers keep everything (no sliding window),
        so that any of it can be cropped."""
        if self._batch is not None:
            self._batch.leave(self)
        return self._states

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        if self._batch is not None:
            return self._batch.nbytes // len(self._batch)
        return sum(tensor.nbytes for tensor in _tensors(self._states))

    def clear(self) -> None:
        """Forgets everything."""
        self.positions = []
        if self._batch is not None:
            self._batch.leave(self)
        self._states = DynamicCache()

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


def _tensors(states: Cache) -> Iterator[torch.Tensor]:
    for layer in states.layers:
        for name in ("keys", "values"):
            tensor = getattr(layer, name, None)
            if isinstance(tensor, torch.Tensor):
                yield tensor


class CacheBatch:
    """Keys and values of several conversations side by side, so that one forward pass takes a step of each.

    Position p of a conversation is column p of its row: nothing moves when conversations of other lengths join or
    leave, each of which copies one row. Between steps nothing is copied, but when the columns or rows run out.
    What a forward pass that failed has written lies behind the row's length, where it is overwritten.
    """

    def __init__(self) -> None:
        self._rows: list[KeyValueCache] = []
        self._layers: list[_RowsLayer] = []
        self._states = Cache(layers=[])

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, cache: object) -> bool:
        return isinstance(cache, KeyValueCache) and cache._batch is self

    @property
    def caches(self) -> tuple[KeyValueCache, ...]:
        """Whose rows there are, in their order."""
        return tuple(self._rows)

    @property
    def nbytes(self) -> int:
        """Memory of all rows, with the room to grow."""
        return sum(tensor.nbytes for tensor in _tensors(self._states))

    @torch.inference_mode()
    def join(self, cache: KeyValueCache) -> None:
        """Takes a conversation's keys and values; it must hold at least one position."""
        theirs: list[Any] = cache.states.layers
        if not self._layers:
            self._layers = [_RowsLayer() for _ in theirs]
            self._states = Cache(layers=list(self._layers))
        row, length = len(self._rows), len(cache)
        for layer, their in zip(self._layers, theirs, strict=True):
            layer.make_room(their.keys, row + 1, length)
            layer.put(row, their.keys[0, :, :length], their.values[0, :, :length])
        self._rows.append(cache)
        cache._batch, cache._states = self, DynamicCache()

    @torch.inference_mode()
    def leave(self, cache: KeyValueCache) -> None:
        """Gives a conversation its keys and values back; the last row takes its place."""
        row, last = self._rows.index(cache), len(self._rows) - 1
        states = DynamicCache()
        for index, layer in enumerate(self._layers):
            if len(cache):
                own = (row, slice(None), slice(len(cache)))
                states.update(layer.keys[own][None], layer.values[own][None], index)
            if row != last:
                length = len(self._rows[last])
                layer.put(row, layer.keys[last, :, :length], layer.values[last, :, :length])
        self._rows[row] = self._rows[last]
        self._rows.pop()
        cache._batch, cache._states = None, states
        if not self._rows:
            self._layers, self._states = [], Cache(layers=[])

    def keep_only(self, caches: Sequence[KeyValueCache]) -> None:
        """Gives all others back what is theirs."""
        for cache in [known for known in self._rows if not any(known is kept for kept in caches)]:
            self.leave(cache)

    @torch.inference_mode()
    def step(self, model: Any, token_ids: Sequence[int]) -> torch.Tensor:
        """Runs one more token of each row, in the order of the rows.

        Args:
            model: a `VideoLlamaForConditionalGeneration`.
            token_ids: B ids.

        Returns:
            logits (B, V).
        """
        lengths = [len(cache) for cache in self._rows]
        longest = max(lengths) + 1
        at: dict[torch.device, torch.Tensor] = {}
        for layer in self._layers:
            if layer.device not in at:
                at[layer.device] = torch.tensor(lengths, device=layer.device)
            layer.make_room(layer.keys, len(lengths), longest)
            layer.write_at(at[layer.device], longest)
        embedding = model.get_input_embeddings()
        embeds = embedding(torch.tensor(token_ids, device=embedding.weight.device)[:, None])
        positions = torch.tensor(lengths, device=embeds.device)[:, None]
        hidden = torch.arange(longest, device=embeds.device) > positions
        mask = embeds.new_zeros(hidden.shape).masked_fill_(hidden, torch.finfo(embeds.dtype).min)
        output = model(
            inputs_embeds=embeds,
            attention_mask=mask[:, None, None],
            position_ids=positions,
            past_key_values=self._states,
            use_cache=True,
            logits_to_keep=1,
        )
        for cache, token_id in zip(self._rows, token_ids, strict=True):
            cache.positions.append(token_id)
        return output.logits[:, -1]


class _RowsLayer(CacheLayerMixin):
    """One layer of a `CacheBatch`: keys and values (B, H, columns, width), with more rows and columns than are used.

    What is not used is zero: it is masked, but zero times a number that is none would still be none.
    """

    keys: Any  # tensors, from the first `make_room` on
    values: Any

    def make_room(self, like: torch.Tensor, rows: int, columns: int) -> None:
        """Grows to hold so much; ``like`` (1 or B, H, any, width) gives everything else."""
        old = (self.keys, self.values) if self.is_initialized else ()
        known_rows, known_columns = old[0].shape[0:3:2] if old else (0, 0)
        if rows <= known_rows and columns <= known_columns:
            return
        if rows > known_rows:
            rows = max(rows, 2 * known_rows)
        if columns > known_columns:
            columns = -(-columns // COLUMNS_AT_ONCE) * COLUMNS_AT_ONCE
        shape = (max(rows, known_rows), like.shape[1], max(columns, known_columns), like.shape[3])
        for name, before in zip(("keys", "values"), old or (None, None), strict=True):
            grown = like.new_zeros(shape)
            if before is not None:
                grown[:known_rows, :, :known_columns] = before
            setattr(self, name, grown)
        self.dtype, self.device, self.is_initialized = like.dtype, like.device, True

    def put(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Writes a whole row: (H, L, width)."""
        for rows, states in ((self.keys, keys), (self.values, values)):
            rows[row, :, : states.shape[1]] = states
            rows[row, :, states.shape[1] :] = 0

    def write_at(self, columns: torch.Tensor, longest: int) -> None:
        """Where the next states go: a column for each row; and how many columns are then in use."""
        self._columns, self._longest = columns, longest
        self._rows = torch.arange(len(columns), device=columns.device)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise AssertionError("rows are there before a step is taken")

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the states (B, H, 1, width) of a step, and returns all that are in use."""
        self.keys[self._rows, :, self._columns] = key_states[:, :, 0]
        self.values[self._rows, :, self._columns] = value_states[:, :, 0]
        count = len(self._rows)
        return self.keys[:count, :, : self._longest], self.values[:count, :, : self._longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._longest, 0

    def get_seq_length(self) -> int:
        return self._longest - 1

    def get_max_length(self) -> int:
        return -1


def _inside_media(positions: Sequence[Position], index: int) -> bool:
    """Whether a cut before ``index`` would fall between two rows of one clip."""
    here, before = positions[index], positions[index - 1]
    return isinstance(here, tuple) and isinstance(before, tuple) and here[0] == before[0] and here[1] == before[1] + 1


class EncodedMedia:
    """The soft tokens of every clip that was shown, so that each is encoded once, by whatever name and however often.

    Args:
        circle: rows that others of the same circle hold, which are taken and not computed again. All of one model, and
            of people who may know of each other's clips: whoever is answered sooner knows that they were there.
    """

    def __init__(self, circle: WeakValueDictionary[str, torch.Tensor] | None = None) -> None:
        self._features: dict[str, torch.Tensor] = {}
        self._circle = WeakValueDictionary[str, torch.Tensor]() if circle is None else circle

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

    def get(self, model: Any, processor: Any, clip: Clip, kind: str) -> torch.Tensor:
        """The clip's rows (Q, D) for the decoder, in the model's dtype; computed the first time.

        Raises:
            ValueError: the clip has nothing of that kind.
        """
        for _ in self.computed(model, processor, clip, kind):
            pass
        return self._features[self.key(processor, clip, kind)]

    @torch.inference_mode()
    def computed(self, model: Any, processor: Any, clip: Clip, kind: str) -> Iterator[None]:
        """Computes a clip's rows where they are not there yet; pauses between the parts, for others to go on.

        Frames pass the encoder a few at a time, so that memory does not grow with their number. Raises as `get`.
        """
        key = self.key(processor, clip, kind)
        if key in self._features:
            return
        if (known := self._circle.get(key)) is not None:
            self._features[key] = known
            return
        if kind == "video" and clip.frames is not None:
            values, seconds = processor.process_frames(clip.frames)
            encode, features, names = model.encode_frames, model.get_video_features, ("frame_seconds", "frame_states")
        elif kind == "audio" and clip.waveforms is not None:
            values, seconds = processor.process_sound(clip.waveforms, clip.windows_seconds)
            encode, features = model.encode_audio_segments, model.get_audio_features
            names = ("segment_seconds", "segment_states")
        else:
            raise ValueError(f"{clip.name} has no {kind}")
        states = []
        for chunk in _on(model, values).split(ENCODED_AT_ONCE):
            states.append(encode(chunk))
            yield
        seconds = torch.as_tensor(seconds, device=model.device)
        self._features[key] = features(**dict(zip(names, (seconds[None], torch.cat(states)[None]), strict=True)))[0]
        self._circle[key] = self._features[key]


def _on(model: Any, values: Any) -> torch.Tensor:
    return torch.as_tensor(values).to(device=model.device, dtype=model.dtype)
