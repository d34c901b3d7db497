"""What a recipe says of its data: each dataset's format, place and share, and the mixture that they make.

`Dataset` is what Video-LLaMA learns from, `ClipTexts` LaViLa's models, `LongVideos` LF-VILA's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from videollm.data.captions import ALIGNMENT_REQUESTS
from videollm.data.howto100m import HowTo100M
from videollm.data.lavila_narrations import LavilaNarrations
from videollm.data.ledger import Ledger
from videollm.data.llava_cc3m import LlavaCC3M
from videollm.data.llava_instruct import LlavaInstruct
from videollm.data.long_form import Format as LongFormat
from videollm.data.long_form import LongFormAnnotations
from videollm.data.minigpt4 import MiniGPT4
from videollm.data.mixture import Mixture
from videollm.data.sample import JsonlSamples, Source
from videollm.data.shards import ShardSamples
from videollm.data.videochat import VideoChat
from videollm.data.webvid import WebVid
from videollm.errors import ConfigError

Format = Literal[
    "jsonl", "shards", "webvid", "llava_cc3m", "minigpt4", "llava_instruct", "videochat", "lavila_narrations",
    "howto100m",
]  # fmt: skip
CAPTIONS = {"webvid", "llava_cc3m", "minigpt4", "lavila_narrations", "howto100m"}
"""Formats that hold captions, not conversations."""


@dataclass(frozen=True)
class Dataset:
    """One dataset of a recipe.

    Attributes:
        format: who reads it; ``jsonl`` is our own, ``shards`` what `videollm data shard` makes.
        path: its annotations: a file, or a folder of tables (webvid, howto100m), of annotations and pictures
            (llava_cc3m, minigpt4), or of shards (or their http(s) address).
        media: the folder of its media files. With jsonl: what paths start from, the file's folder if empty. Unused with
            shards, llava_cc3m and minigpt4.
        ratio: its odds against the other datasets.
        name: in the ledger and in the log of losses; its format, or its file's name, if empty.
        form: whether captions or dialogues are learned from it, which published templates word differently; None: as
            its format has them, and dialogues from jsonl and shards.
        shown: ``"all"``; or only the ``"frames"``, as in published runs, or only the ``"sound"`` of its clips.
        requests: put the published requests before captions, one in turn (llava_cc3m and minigpt4).
        as_published: clean captions with the published slips (webvid).
        together: all narrations of a stretch make one sample (lavila_narrations).
    """

    format: Format
    path: str
    media: str = ""
    ratio: float = 1.0
    name: str = ""
    form: Literal["caption", "dialogue"] | None = None
    shown: Literal["all", "frames", "sound"] = "all"
    requests: bool = False
    as_published: bool = False
    together: bool = False

    def __post_init__(self) -> None:
        _check_ratio(self)
        if self.together and self.format != "lavila_narrations":
            raise ValueError(f"together is about lavila_narrations, not about {self.format}; leave it out")
        if self.format in _NEED_MEDIA and not self.media:
            raise ValueError(f"{self.format} needs the folder of its videos or pictures; add the key 'media'")
        if self.requests and self.format not in ("llava_cc3m", "minigpt4"):
            raise ValueError(f"requests stand before captions of llava_cc3m and minigpt4, not before {self.format}")
        if self.as_published and self.format != "webvid":
            raise ValueError(f"as_published is about captions of webvid, not of {self.format}; leave it out")

    @property
    def learned_as(self) -> Literal["caption", "dialogue"]:
        """``form``, decided."""
        return self.form or ("caption" if self.format in CAPTIONS else "dialogue")


@dataclass(frozen=True)
class ClipTexts:
    """Clips and what is said of them, in our own JSONL: the clip in the user's message, the text in the assistant's.

    Several messages of the assistant are several texts of one clip, of which each visit draws one, as published. Of a
    rephraser the user's message is the sentence, and the assistant's are others of the same meaning. Of a classifier
    the text is the number of the class, or, of several heads, of each, with blanks between.

    Attributes:
        path: the JSONL file; or a folder of shards, or their http(s) address.
        media: what paths of media start from; the file's folder if empty. Unused with shards.
        format: ``jsonl`` is our own, ``shards`` what `videollm data shard` makes.
        ratio: its odds against the other datasets.
        name: in the ledger and the card; the file's name if empty.
        pseudo: its texts are a model's words, not a person's.
    """

    path: str
    media: str = ""
    format: Literal["jsonl", "shards"] = "jsonl"
    ratio: float = 1.0
    name: str = ""
    pseudo: bool = False

    def __post_init__(self) -> None:
        _check_ratio(self)


@dataclass(frozen=True)
class LongVideos:
    """Long videos with their annotations, see `videollm.data.long_form`.

    Attributes:
        format: of the annotations.
        path: of the annotations.
        videos: the folder of videos.
        ratio: its odds against the other datasets.
        name: in the ledger and the card; the format if empty.
    """

    format: LongFormat
    path: str
    videos: str
    ratio: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        _check_ratio(self)


def _check_ratio(dataset: Any) -> None:
    if not dataset.ratio > 0:
        raise ValueError(f"ratio of {dataset.path} must be positive, found {dataset.ratio}; leave the dataset out")


_NEED_MEDIA = {"webvid", "llava_instruct", "videochat", "lavila_narrations", "howto100m"}
_OPEN: dict[str, Callable[[Dataset], Source]] = {
    "jsonl": lambda one: JsonlSamples(one.path, one.media or None, one.name or None),
    "shards": lambda one: ShardSamples(one.path, name=one.name or None),
    "webvid": lambda one: WebVid(one.path, one.media, one.name or "webvid", one.as_published),
    "llava_cc3m": lambda one: LlavaCC3M(one.path, ALIGNMENT_REQUESTS if one.requests else (), one.name or None),
    "minigpt4": lambda one: MiniGPT4(one.path, ALIGNMENT_REQUESTS if one.requests else (), one.name or None),
    "llava_instruct": lambda one: LlavaInstruct(one.path, one.media, name=one.name or "llava_instruct"),
    "videochat": lambda one: VideoChat(one.path, one.media, one.name or "videochat"),
    "lavila_narrations": lambda one: LavilaNarrations(
        one.path, one.media, one.name or "lavila_narrations", one.together
    ),
    "howto100m": lambda one: HowTo100M(one.path, one.media, one.name or "howto100m"),
}


def open_dataset(dataset: Dataset | ClipTexts | LongVideos) -> Any:
    """The samples of a dataset, by number; of `LongVideos`, `videollm.data.long_form.LongForm`.

    Raises:
        DataError: it cannot be read, or is another format.
    """
    if isinstance(dataset, LongVideos):
        return LongFormAnnotations(dataset.format, dataset.path, dataset.videos, dataset.name or None)
    if isinstance(dataset, ClipTexts):
        dataset = Dataset(dataset.format, dataset.path, dataset.media, dataset.ratio, dataset.name)
    return _OPEN[dataset.format](dataset)


def open_mixture(
    datasets: Sequence[Dataset | ClipTexts | LongVideos], seed: int = 0, group: int = 1, ledger: Ledger | None = None
) -> Mixture:
    """The datasets of a recipe, mixed by their ratios; source ``i`` of the mixture is dataset ``i``.

    Args:
        group: so many samples in a row are of one dataset: a batch's, where batches are as published.

    Raises:
        ConfigError: no datasets, or a pickle, which is to be converted once instead of being read by every run.
        DataError: one that cannot be read.
    """
    if not datasets:
        raise ConfigError("a recipe needs at least one dataset; add one under the key 'datasets'")
    for dataset in datasets:
        if dataset.format == "lavila_narrations":
            raise ConfigError(
                f"{dataset.path}: narrations are read once, into JSONL: videollm data convert lavila_narrations FILE "
                "--media FOLDER --out narrations.jsonl; then use it with format: jsonl and form: caption"
            )
    sources = [open_dataset(dataset) for dataset in datasets]
    return Mixture(sources, [dataset.ratio for dataset in datasets], seed, group, ledger)
