"""One training run: what a recipe file may say. How to train is the same for all; what, and on what, is a family's.

The key ``family`` tells the families apart: video_llama, which is meant where it is left out, lavila and lf_vila.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from videollm.data.datasets import ClipTexts, Dataset, LongVideos
from videollm.settings import load_one_of
from videollm.training.progress import Board
from videollm.training.schedule import Schedule

Branch = Literal["video", "audio"]


@dataclass(frozen=True)
class World:
    """What `tiny` is taught of the drawn world (`videollm.data.world`).

    Attributes:
        samples: how many different scenes there are; they are gone through again when the run is longer.
        turns: questions in a conversation.
        weigh: "tokens": every token of every answer alike; "answers": every answer alike (stage decoder).
        words: let facts start out resembling their words (stage decoder; see `DecoderObjective.speak_in_words`).
        first: number of the first conversation (stage tools); without it the tokens for calls begin.
        held_to: folders of runs after which the decoder said what it is held to where no calls are (stage tools);
            without any, those that it starts from.
        emphasis: types of question that are asked eight times as often (stage decoder), or three times (stage tools).
        only: the types of question that are asked (stage decoder); without any all.
        kinds: kinds of scenes of which two thirds of the conversations are (stage decoder); without any all alike.
        tokenizer: folder of the tokenizer, learned from the world's text when it does not exist.
        noise: of the decoder's soft tokens in its text stage.
    """

    samples: int
    turns: int = 5
    weigh: Literal["tokens", "answers"] = "tokens"
    words: bool = False
    first: int = 0
    held_to: tuple[str, ...] = ()
    emphasis: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tokenizer: str = "runs/tiny/tokenizer"
    noise: float = 0.25

    def __post_init__(self) -> None:
        for name in ("samples", "turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, whatever it is.

    Attributes:
        family, stage: what is trained; which there are, the families say.
        output: folder of the run: checkpoints while it runs; at its end the trained parts, and in ``model`` the whole
            model. Processes on several machines must share it.
        steps: updates of the weights.
        batch_size: samples that a process takes at once.
        learning_rate: the highest.
        start_from: folders whose weights are taken before the run begins, later ones over earlier ones. Of
            Video-LLaMA: of finished runs, their trained parts. Of other families: of models or of finished runs, all
            tensors whose names the model has, too.
        bf16: compute in bfloat16; in float32 on a CPU that has no instructions for it.
        gradient_checkpointing: compute again in the backward pass what would fill the memory.
        gradient_accumulation: batches to an update.
        deepspeed: a DeepSpeed configuration, see train_configs/deepspeed.
        max_skipped_share: stop when more than this share of the samples could not be used.
        schedule: behind a warm-up "cosine", "linear" to the last rate, or "constant"; "published": a cosine that
            counts the warm-up's steps, too; "step": times ``decay_rate`` every ``decay_steps``.
        warmup_steps: of the rise from ``warmup_learning_rate``.
        min_learning_rate: at the end of the run; a tenth of the highest if None.
        betas, weight_decay, clip_norm: as everywhere; 0 does not clip.
        momentum: learn by SGD with this momentum in place of AdamW, as published for LaViLa's classifiers.
        threads: of torch on a CPU; workers: processes that make samples.
        save_steps, log_steps: updates between two checkpoints, between two lines.
        report_to: where the figures go besides the terminal and the run's folder.
    """

    family: str
    stage: str
    output: str
    steps: int
    batch_size: int
    learning_rate: float
    start_from: tuple[str, ...] = ()
    bf16: bool = True
    gradient_checkpointing: bool = False
    gradient_accumulation: int = 1
    deepspeed: str | None = None
    max_skipped_share: float = 0.1
    schedule: Schedule = "cosine"
    warmup_steps: int = 100
    warmup_learning_rate: float = 0.0
    min_learning_rate: float | None = None
    decay_steps: int | None = None
    decay_rate: float | None = None
    betas: tuple[float, ...] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    momentum: float | None = None
    seed: int = 0
    threads: int = 1
    workers: int = 1
    save_steps: int = 500
    log_steps: int = 50
    report_to: tuple[Board, ...] = ()

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "gradient_accumulation", "threads", "save_steps", "log_steps", "decay_steps")
        self._at_least_1(*counts)
        for name in ("warmup_steps", "warmup_learning_rate", "workers", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, found {self.learning_rate}")
        if self.min_learning_rate is not None and not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ValueError(f"min_learning_rate must be within 0 and learning_rate, found {self.min_learning_rate}")
        if self.schedule == "step" and (self.decay_steps is None or self.decay_rate is None):
            raise ValueError("schedule step needs decay_steps and decay_rate; add them")
        if self.schedule != "step" and (self.decay_steps, self.decay_rate) != (None, None):
            raise ValueError(
                f"decay_steps and decay_rate belong to schedule step, found {self.schedule}; leave them out"
            )
        if self.decay_rate is not None and not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate must be above 0 and at most 1, found {self.decay_rate}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, found {list(self.betas)}")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, found {self.momentum}")
        if self.momentum is not None and self.deepspeed:
            raise ValueError("DeepSpeed is given AdamW here; leave out momentum or deepspeed")
        if not 0 <= self.max_skipped_share <= 1:
            raise ValueError(f"max_skipped_share must be within 0 and 1, found {self.max_skipped_share}")

    def _at_least_1(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def leaves_parameters_out(self) -> bool:
        """Whether a batch may leave parameters that learn unused."""
        return False

    @property
    def counts_tokens(self) -> bool:
        """Whether batches have ``input_ids`` of which the log tells the speed."""
        return False

    @property
    def last_learning_rate(self) -> float:
        """The learning rate at the end of the run."""
        return self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate


@dataclass(frozen=True, kw_only=True)
class VideoLlamaRecipe(Recipe):
    """A run of Video-LLaMA: of a model's folder on datasets, or of `tiny` from nothing on the world.

    Attributes:
        stage: what is learned, see `videollm.training.freeze`. A model's folder learns in stage1 (captions) and stage2
            (dialogues), which differ in what the recipe says, not in what the trainer does.
        model: the model to start from, a name or a folder as `videollm.models.hub.load` takes it; without one it is
            `tiny` with random weights, and ``world`` says what it learns.
        fresh: begin with random weights in the branches that learn, whatever the folder has there (stage1).
        datasets: what the model learns from.
        world: what `tiny` learns from.
        branches: the branches whose Q-Former, positions and projection learn (stages alignment, stage1, stage2).
        lora_rank: train the decoder by low-rank updates of this rank (stage2); 0: it stays frozen.
        lora_alpha: they are scaled by this over their rank; twice the rank if None.
        bits: 4 or 8: hold the frozen decoder quantised. The finished model has its full precision again.
        features: folder of kept encoder states, made when it is missing; the stages of `tiny` on clips need one.
        batch_from_one_dataset: take each batch from one dataset, drawn by the ratios, as published; else each sample.
        length_grouped: batches of samples of like length.
        max_tokens: longer conversations are not used, or their end is cut off where ``cut`` says so.
        cut: cut what is longer than ``max_tokens``, as published.
        max_caption_tokens: learn so many tokens of a caption at most.
        augment: take frames of clips at random times and cropped at random, as published.
    """

    family: Literal["video_llama"] = "video_llama"
    stage: Literal["vision", "audio", "decoder", "alignment", "stage1", "stage2", "tools"]
    model: str | None = None
    fresh: bool = False
    datasets: tuple[Dataset, ...] = ()
    world: World | None = None
    branches: tuple[Branch, ...] = ("video", "audio")
    lora_rank: int = 0
    lora_alpha: float | None = None
    bits: Literal[4, 8] | None = None
    features: str | None = None
    batch_from_one_dataset: bool = False
    length_grouped: bool = False
    max_tokens: int | None = None
    cut: bool = False
    max_caption_tokens: int | None = None
    augment: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("max_tokens", "max_caption_tokens")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must not be negative, found {self.lora_rank}")
        if not self.branches or len(set(self.branches)) < len(self.branches):
            raise ValueError(f"branches must be video, audio or both, found {list(self.branches)}")
        if self.lora_rank and self.stage != "stage2":
            raise ValueError(f"lora_rank belongs to stage2, found stage {self.stage}; leave it out")
        if self.model is None:
            self._check_tiny()
        else:
            self._check_folder()

    @property
    def leaves_parameters_out(self) -> bool:
        """Every branch runs in every batch; what of tiny's first stages is not used in one is found out."""
        return self.stage not in ("stage1", "stage2", "tools")

    @property
    def counts_tokens(self) -> bool:
        return self.stage in ("decoder", "stage1", "stage2", "tools")

    def _check_tiny(self) -> None:
        if self.world is None:
            raise ValueError("nothing to learn from; add 'model' and 'datasets', or 'world' to train tiny from nothing")
        if self.datasets or self.bits or self.fresh:
            key = "datasets" if self.datasets else "bits" if self.bits else "fresh"
            raise ValueError(f"{key!r} needs a model to start from; add the key 'model'")
        if self.stage in ("alignment", "stage1", "stage2", "tools"):
            if not self.features:
                raise ValueError(f"stage {self.stage} needs a folder for encoder features; add the key 'features'")
            if not self.start_from:
                raise ValueError(f"stage {self.stage} builds on trained parts; add the key 'start_from'")

    def _check_folder(self) -> None:
        if self.stage not in ("stage1", "stage2"):
            raise ValueError(f"stage {self.stage} teaches tiny from nothing; with 'model' choose stage1 or stage2")
        if self.world is not None:
            raise ValueError("'world' teaches tiny from nothing; leave it out, or leave out 'model'")
        if not self.datasets:
            raise ValueError("nothing to learn from; add the key 'datasets'")
        if self.fresh and self.stage != "stage1":
            raise ValueError("'fresh' begins a first stage anew; leave it out, or choose stage1")
        if self.bits and self.deepspeed:
            raise ValueError("DeepSpeed cannot spread a quantised decoder; leave out 'bits' or 'deepspeed'")


@dataclass(frozen=True, kw_only=True)
class LavilaRecipe(Recipe):
    """A run of LaViLa's models.

    Attributes:
        stage: "dual_encoder": clips and texts into one space, by contrast; "ranking": the same by a margin, as it is
            fine-tuned for EPIC-Kitchens; "narrator": captions, by the parts that look at the clip alone; "rephraser":
            sentences in other words; "classifier": classes of clips.
        model: folder of the model to start from, with its processor. Without weights in it all begins at random.
        shape: fields of its config.json that are others in this run; those in sections are given in sections.
        datasets: what it learns from; none where a program hands its own to `videollm.training.run.train`.
        piece_size: dual_encoder: so many pairs of a batch are embedded at once, each twice; the gradients are those of
            the whole batch. None: all at once.
        learn_temperature: dual_encoder: learn it; it is frozen as published.
        pseudo_temperature: dual_encoder: of pairs with a model's words; None: as of the others.
        margin: ranking: by how much the own text is to be nearer than others.
        label_smoothing: classifier.
        backbone_rate: classifier: what encodes the clip learns so many times as fast as the heads.
        also_learn: narrator: parts that learn beside those that look at the clip, e.g. language_model where it begins
            at random; none as published.
        augment: a random box of the frames, and a random frame of each of the segments of the clip, as published.
        flip: mirror half of the clips; as published for classifiers.
        kept_frames: folder in which decoded frames are kept, made as they are met: the same at each visit, but for
            the box and the mirror.
        as_published: repeat the published slips in texts and in the loss of captions, see
            `videollm.models.lavila.processing_lavila` and `videollm.models.lavila.losses`.
    """

    family: Literal["lavila"] = "lavila"
    stage: Literal["dual_encoder", "ranking", "narrator", "rephraser", "classifier"]
    model: str
    shape: dict = field(default_factory=dict)
    datasets: tuple[ClipTexts, ...] = ()
    piece_size: int | None = None
    learn_temperature: bool = False
    pseudo_temperature: float | None = None
    margin: float = 0.2
    label_smoothing: float = 0.0
    backbone_rate: float = 1.0
    also_learn: tuple[str, ...] = ()
    augment: bool = False
    flip: bool = False
    kept_frames: str | None = None
    as_published: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("piece_size")
        belongs = {
            "piece_size": "dual_encoder", "learn_temperature": "dual_encoder", "pseudo_temperature": "dual_encoder",
            "margin": "ranking", "also_learn": "narrator", "label_smoothing": "classifier",
            "backbone_rate": "classifier",
        }  # fmt: skip
        for name, stage in belongs.items():
            if getattr(self, name) != type(self).__dataclass_fields__[name].default and self.stage != stage:
                raise ValueError(f"{name} belongs to stage {stage}, found {self.stage}; leave it out")
        if self.piece_size is not None:
            if self.learn_temperature:
                raise ValueError("pieces cannot learn a temperature; leave out piece_size or learn_temperature")
            if self.deepspeed or self.gradient_accumulation > 1:
                key = "deepspeed" if self.deepspeed else "gradient_accumulation"
                raise ValueError(f"pieces already make a batch as large as it is to be; leave out {key}")
        for name in ("pseudo_temperature", "backbone_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, found {value}")
        for name in ("kept_frames", "augment", "flip"):
            if getattr(self, name) and self.stage == "rephraser":
                raise ValueError(f"a rephraser sees no frames; leave out {name}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to below 1, found {self.label_smoothing}")

    @property
    def counts_tokens(self) -> bool:
        return self.stage == "rephraser"


@dataclass(frozen=True, kw_only=True)
class LfVilaRecipe(Recipe):
    """A run of LF-VILA's models. What of the published losses is corrected is told by `LfVilaConfig.as_published`.

    Attributes:
        stage: "stage1": whole videos and moments in time (MTC) against text; "stage2": hidden words, and which text
            belongs to a video, by the layers that read both; "retrieval"; "question_answering": one of a fixed set of
            answers; "multiple_choice": one of the choices, and when; "classification": one of a fixed set of classes.
        model: folder of the model to start from, with its processor. Without weights in it all begins at random.
        shape: fields of its config.json that are others in this run; those in sections are given in sections.
        datasets: what it learns from; none where a program hands its own to `videollm.training.run.train`.
        sentences: of a paragraph: more are joined. None: as many as the processor says; of a question with its choice
            and what is said, as many as the model tells apart.
        masked_share: stage2: of the words.
        learn_pooler: stage2 and questions: the published programs' optimiser did not have it (D9).
        augment: a random box of the frames, half of them mirrored, frames at times shifted at random, as published.
    """

    family: Literal["lf_vila"] = "lf_vila"
    stage: Literal["stage1", "stage2", "retrieval", "question_answering", "multiple_choice", "classification"]
    model: str
    shape: dict = field(default_factory=dict)
    datasets: tuple[LongVideos, ...] = ()
    sentences: int | None = None
    masked_share: float = 0.15
    learn_pooler: bool = True
    augment: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("sentences")
        if not 0 < self.masked_share < 1:
            raise ValueError(f"masked_share must be between 0 and 1, found {self.masked_share}")


FAMILIES: dict[str, type[Recipe]] = {
    "video_llama": VideoLlamaRecipe, "lavila": LavilaRecipe, "lf_vila": LfVilaRecipe,
}  # fmt: skip


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, of whatever family; see `videollm.settings.load_settings`.

    Raises:
        ConfigError: naming the file, the line and what to do.
    """
    return load_one_of(path, "family", FAMILIES, overrides)
