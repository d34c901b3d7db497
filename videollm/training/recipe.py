"""One training run: what a recipe file may say."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from videollm.data.datasets import Dataset
from videollm.training.progress import Board
from videollm.training.schedule import Schedule

Stage = Literal["vision", "audio", "decoder", "alignment", "stage1", "stage2"]
Branch = Literal["video", "audio"]


@dataclass(frozen=True)
class World:
    """What `tiny` is taught of the drawn world (`videollm.data.world`).

    Attributes:
        samples: how many different scenes there are; they are gone through again when the run is longer.
        turns: questions in a conversation.
        weigh: "tokens": every token of every answer alike; "answers": every answer alike (stage decoder).
        words: let facts start out resembling their words (stage decoder; see `DecoderObjective.speak_in_words`).
        emphasis: types of question that are asked eight times as often (stage decoder).
        only: the types of question that are asked (stage decoder); without any all.
        kinds: kinds of scenes of which two thirds of the conversations are (stage decoder); without any all alike.
        tokenizer: folder of the tokenizer, learned from the world's text when it does not exist.
        noise: of the decoder's soft tokens in its text stage.
    """

    samples: int
    turns: int = 5
    weigh: Literal["tokens", "answers"] = "tokens"
    words: bool = False
    emphasis: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tokenizer: str = "runs/tiny/tokenizer"
    noise: float = 0.25

    def __post_init__(self) -> None:
        for name in ("samples", "turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Recipe:
    """A training run, complete on its own: of a model's folder on datasets, or of `tiny` from nothing on the world.

    Attributes:
        stage: what is learned, see `videollm.training.freeze`. A model's folder learns in stage1 (captions) and stage2
            (dialogues), which differ in what the recipe says, not in what the trainer does.
        output: folder of the run: checkpoints while it runs; at its end the trained parts, and in ``model`` the whole
            model. Processes on several machines must share it.
        steps: updates of the weights.
        batch_size: samples that a process takes at once.
        learning_rate: the highest.
        model: the model to start from, a name or a folder as `videollm.models.hub.load` takes it; without one it is
            `tiny` with random weights, and ``world`` says what it learns.
        fresh: begin with random weights in the branches that learn, whatever the folder has there (stage1).
        start_from: folders of finished runs whose trained parts are taken, later ones over earlier ones.
        datasets: what the model learns from.
        world: what `tiny` learns from.
        branches: the branches whose Q-Former, positions and projection learn (stages alignment, stage1, stage2).
        lora_rank: train the decoder by low-rank updates of this rank (stage2); 0: it stays frozen.
        lora_alpha: they are scaled by this over their rank; twice the rank if None.
        bits: 4 or 8: hold the frozen decoder quantised. The finished model has its full precision again.
        bf16: compute in bfloat16.
        gradient_checkpointing: compute again in the backward pass what would fill the memory.
        gradient_accumulation: batches to an update; every target token of them weighs the same.
        deepspeed: a DeepSpeed configuration, see train_configs/deepspeed.
        features: folder of kept encoder states, made when it is missing; the stages of `tiny` on clips need one.
        batch_from_one_dataset: take each batch from one dataset, drawn by the ratios, as published; else each sample.
        length_grouped: batches of samples of like length.
        max_tokens: longer conversations are not used, or their end is cut off where ``cut`` says so.
        cut: cut what is longer than ``max_tokens``, as published.
        max_caption_tokens: learn so many tokens of a caption at most.
        augment: take frames of clips at random times and cropped at random, as published.
        max_skipped_share: stop when more than this share of the samples could not be used.
        schedule: "cosine": a linear warm-up, then a cosine; "published": with the published drop in between.
        warmup_steps: of the rise from ``warmup_learning_rate``.
        min_learning_rate: at the end of the run; a tenth of the highest if None.
        betas, weight_decay, clip_norm: as everywhere; 0 does not clip.
        threads: of torch on a CPU; workers: processes that make samples.
        save_steps, log_steps: updates between two checkpoints, between two lines.
        report_to: where the figures go besides the terminal and the run's folder.
    """

    stage: Stage
    output: str
    steps: int
    batch_size: int
    learning_rate: float
    model: str | None = None
    fresh: bool = False
    start_from: tuple[str, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    world: World | None = None
    branches: tuple[Branch, ...] = ("video", "audio")
    lora_rank: int = 0
    lora_alpha: float | None = None
    bits: Literal[4, 8] | None = None
    bf16: bool = True
    gradient_checkpointing: bool = False
    gradient_accumulation: int = 1
    deepspeed: str | None = None
    features: str | None = None
    batch_from_one_dataset: bool = False
    length_grouped: bool = False
    max_tokens: int | None = None
    cut: bool = False
    max_caption_tokens: int | None = None
    augment: bool = False
    max_skipped_share: float = 0.1
    schedule: Schedule = "cosine"
    warmup_steps: int = 100
    warmup_learning_rate: float = 0.0
    min_learning_rate: float | None = None
    betas: tuple[float, ...] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    seed: int = 0
    threads: int = 1
    workers: int = 1
    save_steps: int = 500
    log_steps: int = 50
    report_to: tuple[Board, ...] = ()

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "gradient_accumulation", "threads", "save_steps", "log_steps")
        for name in (*counts, "max_tokens", "max_caption_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        for name in ("warmup_steps", "warmup_learning_rate", "lora_rank", "workers", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, found {self.learning_rate}")
        if self.min_learning_rate is not None and not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ValueError(f"min_learning_rate must be within 0 and learning_rate, found {self.min_learning_rate}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, found {list(self.betas)}")
        if not 0 <= self.max_skipped_share <= 1:
            raise ValueError(f"max_skipped_share must be within 0 and 1, found {self.max_skipped_share}")
        if not self.branches or len(set(self.branches)) < len(self.branches):
            raise ValueError(f"branches must be video, audio or both, found {list(self.branches)}")
        if self.lora_rank and self.stage != "stage2":
            raise ValueError(f"lora_rank belongs to stage2, found stage {self.stage}; leave it out")
        if self.model is None:
            self._check_tiny()
        else:
            self._check_folder()

    def _check_tiny(self) -> None:
        if self.world is None:
            raise ValueError("nothing to learn from; add 'model' and 'datasets', or 'world' to train tiny from nothing")
        if self.datasets or self.bits or self.fresh:
            key = "datasets" if self.datasets else "bits" if self.bits else "fresh"
            raise ValueError(f"{key!r} needs a model to start from; add the key 'model'")
        if self.stage in ("alignment", "stage1", "stage2"):
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

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def last_learning_rate(self) -> float:
        """The learning rate at the end of the run."""
        return self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate
