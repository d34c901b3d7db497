"""Encoder states computed once: the encoders are frozen while Q-Formers and decoder learn.

A folder of features holds shards, safetensors files of many clips. Each names the encoder that made it: the weights and
all that decides what they are shown. A file gets its name when it is whole, and what is there is not made again, so
that a stopped run goes on. Clips of files are found by what is in the file and by the stretch of it that is shown,
wherever it lies.

Notation: T frames, S segments of sound, Q queries, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from videollm.clips import Clip
from videollm.data.collate import FileMedia, Look, Shown, as_shown, stand_in_clip, stand_in_frames
from videollm.data.datasets import Dataset
from videollm.data.mixture import Mixture
from videollm.data.sample import Media
from videollm.data.shards import ShardSamples
from videollm.data.world_samples import ClipItems, ClipSamples
from videollm.data.world_tools import ToolTurns, encode_tool_turns
from videollm.errors import ConfigError, DataError, UnusableSampleError
from videollm.models.video_llama import VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from videollm.training import processes

SHARD_CLIPS = 1000
BATCH_CLIPS = 16
FORMAT = "videollm-features-1"
DIGESTS = "digests.sqlite"
_OPEN_SHARDS = 64
_KINDS = ("video", "image", "audio")


def encoder_name(model: VideoLlamaForConditionalGeneration, processor: VideoLlamaProcessor, dtype: torch.dtype) -> str:
    """A hash of all that a clip's states depend on besides the clip: frozen weights, preprocessing, sampling, dtype."""
    digest = hashlib.sha256()
    shown = {
        "dtype": str(dtype), "frames": processor.frame_sampling, "sound": processor.sound_sampling,
        "eye": processor.image_processor.to_dict(), "ear": processor.feature_extractor.to_dict(),
    }  # fmt: skip
    digest.update(json.dumps(shown, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.split(".")[0] in ("vision_model", "qformer", "query_tokens", "audio_model"):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor.cpu()))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


# --- writing ----------------------------------------------------------------------------------------------------------


def make_features(
    model: VideoLlamaForConditionalGeneration,
    samples: ClipSamples,
    folder: str | Path,
    workers: int,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Encode the world's clips into shards of `SHARD_CLIPS`; shards that are there are kept.

    Raises:
        ConfigError: the folder holds the features of another encoder.
    """
    encoder = encoder_name(model, samples.processor, dtype)
    for first in range(0, len(samples), SHARD_CLIPS):
        target = Path(folder) / f"clips-{first:07d}.safetensors"
        if target.exists():
            _metadata(target, encoder)
        else:
            part = Subset(samples, range(first, min(first + SHARD_CLIPS, len(samples))))
            _write_shard(model, part, target, workers, dtype, encoder)


def make_media_features(
    model: VideoLlamaForConditionalGeneration,
    processor: VideoLlamaProcessor,
    mixture: Mixture,
    datasets: Sequence[Dataset],
    folder: str | Path,
    workers: int,
    dtype: torch.dtype = torch.bfloat16,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Encode all media of a mixture into shards of `SHARD_CLIPS` that `KeptMedia` reads; what is there is kept.

    Media that cannot be used are kept as such, with the reason. Disk: at full size 400 kB a clip of 8 frames.

    Args:
        mixture, datasets: as of `TrainingItems`.
        workers: processes that decode.
        dtype: of the states, and of the encoders' arithmetic (bfloat16: autocast, where there are instructions for it).
        part, parts: of several processes, each does so many-th samples; `KeptMedia` is made when all are done.

    Raises:
        ConfigError: the folder holds the features of another encoder, or cannot be written.
        DataError: a dataset cannot be read.
    """
    folder = Path(folder)
    encoder = encoder_name(model, processor, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = KeptMedia(folder, processor, encoder)
        digests = Digests(folder, write=True)
        found: dict[bytes, _Wanted] = {}
        listed = _Listed(mixture, datasets, kept, part, parts)
        loader = DataLoader(listed, batch_size=64, num_workers=workers, collate_fn=_as_list)
        for batch in tqdm(loader, desc="media listed", unit=" x 64", mininterval=5):
            several = [wanted for one in batch for wanted in one]
            digests.remember(several)
            for wanted in several:
                if not kept.has(wanted.key):
                    found.setdefault(wanted.key, wanted)
        todo = list(found.values())
        for first in range(0, len(todo), SHARD_CLIPS):
            chunk = todo[first : first + SHARD_CLIPS]
            name = hashlib.sha256(b"".join(wanted.key for wanted in chunk)).hexdigest()[:16]
            clips = _MediaClips(mixture, chunk, FileMedia(processor))
            _write_shard(model, clips, folder / f"clips-{name}.safetensors", workers, dtype, encoder)
    except (OSError, sqlite3.Error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"cannot keep features in {folder}: {reason}; what is finished stays, run it again") from None


@torch.no_grad()
def _write_shard(
    model: VideoLlamaForConditionalGeneration,
    clips: TorchDataset[dict[str, Any]],
    target: Path,
    workers: int,
    dtype: torch.dtype,
    encoder: str,
) -> None:
    """Encode clips into one file, whole or not at all.

    It holds ``frame_states`` ``(sum T, Q, D)``, ``segment_states`` ``(sum S, D)`` with their seconds, how many of them
    each clip has, a checksum of each, and whatever else the clips have.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    model.eval()
    device, weights = model.query_tokens.device, model.query_tokens.dtype
    width = model.config.audio_config.projection_dim if model.config.has_audio else 1
    kept: dict[str, list[torch.Tensor]] = {}
    unusable: list[tuple[str, str, str]] = []
    loader = DataLoader(clips, batch_size=BATCH_CLIPS, num_workers=workers, collate_fn=_as_list)
    for batch in tqdm(loader, desc=f"features {target.stem}", mininterval=5):
        unusable += [item["unusable"] for item in batch if "unusable" in item]
        items = [item for item in batch if "unusable" not in item]
        if not items:
            continue
        pixels, sounds = (torch.cat([item[key] for item in items]) for key in ("pixel_values", "audio_values"))
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16 and processes.computes_bf16()):
            shape = (0, model.config.num_query_tokens, model.config.qformer_config.hidden_size)
            frames = model.encode_frames(pixels.to(device, weights)) if len(pixels) else torch.zeros(shape)
            segments = torch.zeros(0, width)
            if len(sounds):
                segments = model.encode_audio_segments(sounds.to(device, weights))
        frames, segments = frames.to("cpu", dtype), segments.to("cpu", dtype)
        counts = [(len(item["frame_seconds"]), len(item["segment_seconds"])) for item in items]
        each = zip(frames.split([t for t, _ in counts]), segments.split([s for _, s in counts]), strict=True)
        rows = {
            "frame_states": frames, "segment_states": segments,
            "frame_count": torch.tensor([t for t, _ in counts]), "segment_count": torch.tensor([s for _, s in counts]),
            "checksum": torch.tensor([_checksum(*states) for states in each]),
        }  # fmt: skip
        for name, value in rows.items():
            kept.setdefault(name, []).append(value)
        for item in items:
            for name, value in item.items():
                if name not in ("pixel_values", "audio_values"):
                    whole = name in ("frame_seconds", "segment_seconds")
                    kept.setdefault(name, []).append(value if whole else value[None])
    staging = target.with_suffix(".part")  # what a killed run left of this shard is written over
    told = {"format": FORMAT, "encoder": encoder, "unusable": json.dumps(unusable)}
    try:
        save_file({name: torch.cat(values) for name, values in kept.items()}, staging, told)
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(staging, target)
    except SafetensorError as error:
        raise OSError(None, str(error)) from None
    finally:
        staging.unlink(missing_ok=True)


def _checksum(frame_states: torch.Tensor, segment_states: torch.Tensor) -> int:
    return zlib.crc32(_bytes(segment_states), zlib.crc32(_bytes(frame_states)))


def _as_list(items: list[Any]) -> list[Any]:
    return items


# --- reading ----------------------------------------------------------------------------------------------------------


def _metadata(path: Path, encoder: str | None) -> dict[str, str]:
    """What a shard says of itself.

    Raises:
        ConfigError: it is none, or of another encoder.
    """
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: not readable ({error}); delete it, it is made again") from None
    if told.get("format") != FORMAT:
        raise ConfigError(f"{path}: no features of this version; delete it, or name another folder for features")
    if encoder is not None and told.get("encoder") != encoder:
        raise ConfigError(
            f"{path}: made by another encoder, or with other preprocessing or sampling ({told.get('encoder')!s:.12}, "
            f"this is {encoder:.12}); delete the folder, or name another one for features"
        )
    return told


class KeptClips:
    """The clips of a folder of features, by number. Nothing is in memory but where each is.

    Args:
        folder: of shards.
        encoder: whose they must be, see `encoder_name`; None: any.

    Raises:
        ConfigError: a file that is no shard, or of another encoder.
    """

    def __init__(self, folder: str | Path, encoder: str | None = None) -> None:
        self.paths = sorted(Path(folder).glob("clips-*.safetensors"))
        self.unusable: dict[bytes, tuple[Any, str]] = {}
        places: list[np.ndarray] = []
        extra: dict[str, list[torch.Tensor]] = {}
        for number, path in enumerate(self.paths):
            told = _metadata(path, encoder)
            for key, reason, message in json.loads(told.get("unusable", "[]")):
                self.unusable[bytes.fromhex(key)] = reason, message
            with safe_open(path, "pt") as file:
                names = set(file.keys())
                if "frame_count" not in names:
                    continue  # nothing in it could be used
                counts = np.stack([file.get_tensor(f"{unit}_count").numpy() for unit in ("frame", "segment")], 1)
                for name in names - {"frame_states", "segment_states", "frame_seconds", "segment_seconds"}:
                    extra.setdefault(name, []).append(file.get_tensor(name))
            begins = np.cumsum(counts, 0) - counts
            places.append(np.column_stack([np.full(len(counts), number), begins, begins + counts]))
        self._places = np.concatenate(places) if places else np.zeros((0, 5), np.int64)
        self.extra = {name: torch.cat(values) for name, values in extra.items()}
        self._files: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """``frame_states (T, Q, D)``, ``frame_seconds (T,)``, ``segment_states (S, D)``, ``segment_seconds (S,)``.

        Raises:
            DataError: what is stored is damaged.
        """
        shard, frame, segment, frame_end, segment_end = self._places[number].tolist()
        file = self._file(shard)
        stored = {
            f"{unit}_{what}": file.get_slice(f"{unit}_{what}")[begin:end]
            for unit, begin, end in (("frame", frame, frame_end), ("segment", segment, segment_end))
            for what in ("states", "seconds")
        }
        if _checksum(stored["frame_states"], stored["segment_states"]) != int(self.extra["checksum"][number]):
            raise DataError(f"{self.paths[shard]}: damaged; delete it, it is made again")
        return stored

    def times(self, number: int) -> tuple[np.ndarray, bool]:
        """The seconds of a clip's frames, and whether it has sound, without reading its states."""
        shard, frame, segment, frame_end, segment_end = self._places[number].tolist()
        return self._file(shard).get_slice("frame_seconds")[frame:frame_end].numpy(), segment_end > segment

    def _file(self, shard: int) -> Any:
        if shard not in self._files:
            self._files[shard] = safe_open(self.paths[shard], "pt")
            if len(self._files) > _OPEN_SHARDS:
                self._files.popitem(last=False)
        self._files.move_to_end(shard)
        return self._files[shard]


class FeatureSamples(TorchDataset[dict[str, Any]]):
    """What `ClipItems` says about kept clips, with the encoder states of what is seen and heard."""

    def __init__(self, folder: str | Path, items: ClipItems) -> None:
        self.items, self.clips = items, KeptClips(folder)
        self.pictures = self.clips.extra["picture"]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit = self.items(index, self.pictures)
        seen = self.clips[visit.seen]
        heard = seen if visit.heard == visit.seen else self.clips[visit.heard]
        states, seconds = seen["frame_states"], seen["frame_seconds"]
        if visit.backwards:
            states, seconds = states.flip(0), (seconds[-1] - seconds).flip(0)
        return {
            **visit.item,
            "videos": [(states, seconds)],
            "sounds": [(heard["segment_states"], heard["segment_seconds"])],
        }


class ToolSamples(TorchDataset[dict[str, Any]]):
    """Conversations in which tools are called, about films of many kept clips; every third one is of `FeatureSamples`.

    Of a film the model sees and hears single moments, each of another clip; a stretch that a tool shows is a clip.

    Args:
        folder: of kept clips.
        items: make the other conversations.
        first: number of the first conversation: behind those of a run that this one goes on from.
        emphasis: see `ToolTurns`.
    """

    FILMS = 256

    def __init__(self, folder: str | Path, items: ClipItems, first: int = 0, emphasis: Sequence[str] = ()) -> None:
        self.rest, self.items, self.first = FeatureSamples(folder, items), items, first
        self.clips = self.rest.clips
        self.turns = ToolTurns(items.seed, self.rest.pictures, emphasis)
        self._films: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self.rest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.items.visits += self.first
        if index % 3 == 0:
            item = self.rest[index]
            shown = {
                "videos": item["videos"] if item["seen"] else [],
                "sounds": item["sounds"] if item["heard"] else [],
                "said_again": _pairs([]),
                "rehearsed": True,
            }
            return {"input_ids": item["input_ids"], "labels": item["labels"], **shown}
        self.items.visits += 1
        rng = np.random.default_rng([self.items.seed, 37, self.items.visits])
        lasts, turns = self.turns(rng)
        heard = rng.random() < 0.8
        answered = turns[-1].call is None or rng.random() < 0.55
        told = encode_tool_turns(self.items.processor, lasts, turns, heard, answered)
        if len(told.input_ids) > LONGEST_TOOL_TOKENS:
            turns = turns[:1]
            told = encode_tool_turns(self.items.processor, lasts, turns, heard, turns[0].call is None)
        film = dict(zip(("video", "audio"), self._film(rng), strict=True))
        media: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"video": [], "audio": []}
        for kind, number in told.shown:
            if number is None:
                media[kind].append((film[kind], _spread(lasts, len(film[kind]))))
            else:
                kept, unit = self.clips[turns[number].clip], "frame" if kind == "video" else "segment"
                media[kind].append((kept[f"{unit}_states"], kept[f"{unit}_seconds"]))
        return {
            "input_ids": told.input_ids,
            "labels": told.labels,
            "videos": media["video"],
            "sounds": media["audio"],
            "said_again": _pairs(told.said_again),
            "rehearsed": False,
        }

    def _film(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The states of a film's frames ``(T, Q, D)`` and of its sound ``(S, D)``."""
        if not self._films:
            draw = np.random.default_rng([self.items.seed, 41])
            for _ in range(min(self.FILMS, len(self.clips))):
                frames, segments = [], []
                while len(frames) < FILM_MOMENTS:
                    kept = self.clips[int(draw.integers(len(self.clips)))]
                    frames.append(kept["frame_states"][int(draw.integers(len(kept["frame_states"])))])
                    if len(kept["segment_states"]):
                        segments.append(kept["segment_states"][int(draw.integers(len(kept["segment_states"])))])
                silence = self.clips[0]["segment_states"].new_zeros(1, self.clips[0]["segment_states"].shape[1])
                self._films.append((torch.stack(frames), torch.stack(segments) if segments else silence))
        return self._films[int(rng.integers(len(self._films)))]


FILM_MOMENTS = 32
"""Frames, and segments of sound, that `tiny` is shown of a film."""
LONGEST_TOOL_TOKENS = 304


MOST_SAID_AGAIN = 96


def _pairs(found: Sequence[tuple[int, int]]) -> torch.Tensor:
    """int ``(MOST_SAID_AGAIN, 2)``, -1 behind the last pair."""
    pairs = torch.full((MOST_SAID_AGAIN, 2), -1)
    kept = found[:MOST_SAID_AGAIN]
    if kept:
        pairs[: len(kept)] = torch.tensor(kept)
    return pairs


def _spread(lasts: float, count: int) -> torch.Tensor:
    return torch.arange(count) * (lasts / count)


# --- media of datasets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """A media file that is to be encoded: its key, and in which sample of which source it was found, as what.

    ``file`` is (path, size, time of change, digest) where the file will be there again.
    """

    key: bytes
    source: int
    index: int
    name: str
    look: Look
    file: tuple[str, int, int, bytes] | None


class _Listed(TorchDataset[list[_Wanted]]):
    """The media of each sample of a mixture's datasets."""

    def __init__(self, mixture: Mixture, datasets: Sequence[Dataset], kept: KeptMedia, part: int, parts: int) -> None:
        self._mixture, self._datasets, self._kept = mixture, datasets, kept
        self._ends = np.cumsum([len(source) for source in mixture.sources])
        self._numbers = range(part, int(self._ends[-1]), parts)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> list[_Wanted]:
        number = self._numbers[index]
        source = int(np.searchsorted(self._ends, number, side="right"))
        samples = self._mixture.sources[source]
        place = number - int(self._ends[source]) + len(samples)
        try:
            sample = samples[place]
            _, looks = as_shown(sample, self._datasets[source], self._kept.processor)
        except UnusableSampleError:
            return []
        found = []
        for name, look in looks.items():
            media = sample.media[name]
            try:
                digest = self._kept.digest(media)
                file = None
                if not media.is_url and not isinstance(samples, ShardSamples):
                    state = os.stat(media.path)
                    file = media.path, state.st_size, state.st_mtime_ns, digest
            except (UnusableSampleError, OSError):
                continue
            found.append(_Wanted(_key(digest, media, look), source, place, name, look, file))
        return found


class _MediaClips(TorchDataset[dict[str, Any]]):
    """The tensors of media to be encoded, each with its key."""

    def __init__(self, mixture: Mixture, wanted: Sequence[_Wanted], files: FileMedia) -> None:
        self._mixture, self._wanted, self._files = mixture, wanted, files

    def __len__(self) -> int:
        return len(self._wanted)

    def __getitem__(self, index: int) -> dict[str, Any]:
        wanted = self._wanted[index]
        try:
            # Not the media found before: those of shards are there only as long as their sample.
            media = self._mixture.sources[wanted.source][wanted.index].media[wanted.name]
            shown = self._files(media, wanted.look, np.random.default_rng(0))
        except UnusableSampleError as error:
            return {"unusable": (wanted.key.hex(), error.reason, str(error))}
        processor = self._files.processor
        size, ear = processor.image_processor.size, processor.feature_extractor
        nothing = torch.zeros(0)
        pixels, seconds = shown.video or (torch.zeros(0, 3, size, size), nothing)
        values, starts = shown.sound or (torch.zeros(0, 1, ear.num_mel_bins, ear.target_length), nothing)
        return {
            "pixel_values": pixels, "frame_seconds": seconds, "audio_values": values, "segment_seconds": starts,
            "key": torch.frombuffer(bytearray(wanted.key), dtype=torch.uint8),
            "kind": torch.tensor(_KINDS.index(shown.clip.kind)),
            "duration_seconds": torch.tensor(shown.clip.frames.duration_seconds if shown.clip.frames else 0.0),
        }  # fmt: skip


def _key(digest: bytes, media: Media, look: Look) -> bytes:
    """What a clip is found by: the bytes of its file, and what is seen and heard of it."""
    stretch = f"{media.start_seconds} {media.end_seconds} {look.seen} {look.heard}"
    return hashlib.sha256(digest + stretch.encode()).digest()


class KeptMedia:
    """Media as kept encoder states: a `MediaTensors` for `TrainingItems` with which no encoder ever runs.

    Args:
        folder: that `make_media_features` filled.
        processor: of the model.
        encoder: the model's, see `encoder_name`.

    Raises:
        ConfigError: features of another encoder.
    """

    def __init__(self, folder: str | Path, processor: VideoLlamaProcessor, encoder: str) -> None:
        self.processor, self._clips, self._folder = processor, KeptClips(folder, encoder), Path(folder)
        keys = self._clips.extra.get("key", torch.zeros(0, 32, dtype=torch.uint8)).numpy()
        if len(keys) != len(self._clips):
            raise ConfigError(f"{folder} holds features of drawn clips, too; name another folder for features")
        table = np.ascontiguousarray(keys).view("S32").reshape(-1)
        self._order = np.argsort(table, kind="stable")
        self._keys = table[self._order]
        self._digests: Digests | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_digests": None}

    def digest(self, media: Media) -> bytes:
        """What is in a media file. Of an address it is the address.

        Raises:
            UnusableSampleError: there is no such file.
        """
        if media.is_url:
            return hashlib.sha256(media.path.encode()).digest()
        if self._digests is None or self._digests.process != os.getpid():
            self._digests = Digests(self._folder)
        try:
            return self._digests.of(media.path)
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise UnusableSampleError(
                "missing media", f"{media.path}: cannot be read ({reason}); look for it"
            ) from None

    def _number(self, key: bytes) -> int | None:
        place = int(np.searchsorted(self._keys, key))
        found = place < len(self._keys) and self._keys[place] == key.rstrip(b"\0")
        return int(self._order[place]) if found else None

    def has(self, key: bytes) -> bool:
        """Whether there is a clip, or a reason why there is none."""
        return key in self._clips.unusable or self._number(key) is not None

    def _find(self, media: Media, look: Look) -> int:
        """Raises: UnusableSampleError, DataError"""
        key = _key(self.digest(media), media, look)
        if key in self._clips.unusable:
            raise UnusableSampleError(*self._clips.unusable[key])
        number = self._number(key)
        if number is None:
            raise DataError(f"{media.path}: there are no kept features of it; it changed: make the features again")
        return number

    def _clip(self, number: int, seconds: np.ndarray, heard: bool) -> Clip:
        duration = float(self._clips.extra["duration_seconds"][number])
        kind = _KINDS[int(self._clips.extra["kind"][number])]
        return stand_in_clip(stand_in_frames(seconds, duration) if len(seconds) else None, heard, kind)

    def __call__(self, media: Media, look: Look, draw: np.random.Generator) -> Shown:
        number = self._find(media, look)
        kept = self._clips[number]
        video, sound = ((kept[f"{unit}_states"], kept[f"{unit}_seconds"]) for unit in ("frame", "segment"))
        clip = self._clip(number, kept["frame_seconds"].numpy(), len(sound[1]) > 0)
        return Shown(clip, video if len(video[1]) else None, sound if len(sound[1]) else None)

    def preview(self, media: Media, look: Look) -> Clip:
        number = self._find(media, look)
        return self._clip(number, *self._clips.times(number))


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, changed_ns: int) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class Digests:
    """SHA-256 of files, remembered in a folder by path, size and time of change, so that a file is read once.

    Many processes may use it at once; it can be deleted at any time.
    """

    def __init__(self, folder: Path, write: bool = False) -> None:
        self.process, self._table = os.getpid(), None
        if write or (folder / DIGESTS).exists():
            mode = "rwc" if write else "ro"
            self._table = sqlite3.connect(f"{(folder / DIGESTS).resolve().as_uri()}?mode={mode}", uri=True, timeout=120)
        if write and self._table is not None:
            self._table.execute("create table if not exists files (path blob primary key, size, changed_ns, digest)")

    def of(self, path: str) -> bytes:
        """Raises: OSError"""
        state = os.stat(path)
        told = None
        if self._table is not None:
            asked = "select size, changed_ns, digest from files where path = ?"
            told = self._table.execute(asked, (os.fsencode(path),)).fetchone()
        if told is not None and told[:2] == (state.st_size, state.st_mtime_ns):
            return told[2]
        return _sha256(path, state.st_size, state.st_mtime_ns)

    def remember(self, several: Sequence[_Wanted]) -> None:
        """Keep what `of` gave; only where it was opened to write."""
        rows = [(os.fsencode(wanted.file[0]), *wanted.file[1:]) for wanted in several if wanted.file is not None]
        if rows and self._table is not None:
            with self._table as table:
                table.executemany("insert or replace into files values (?, ?, ?, ?)", rows)
