"""One training run: what a recipe file may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["vision", "audio", "decoder", "alignment", "stage1", "stage2"]


@dataclass(frozen=True)
class Recipe:
    """A training run on the world, complete on its own.

    Attributes:
        stage: what is learned, see `videollm.training.freeze`.
        output: folder of the run: checkpoints while it runs, the trained parts at its end.
        start_from: folders of finished runs whose trained parts are taken, later ones over earlier ones; without
            any the model starts from random weights.
        samples: how many different scenes there are; they are gone through again when the run is longer.
        batch_size, steps, learning_rate, warmup_steps, weight_decay, clip_norm: as everywhere. The learning rate falls
            to a tenth along a cosine.
        turns: questions in a conversation.
        weigh: "tokens": every token of every answer alike; "answers": every answer alike (stage decoder).
        words: let facts start out resembling their words (stage decoder; see `DecoderObjective.speak_in_words`).
        emphasis: types of question that are asked eight times as often (stage decoder).
        only: the types of question that are asked (stage decoder); without any all.
        kinds: kinds of scenes of which two thirds of the conversations are (stage decoder); without any all alike.
        tokenizer: folder of the tokenizer, learned from the world's text when it does not exist.
        features: folder of kept encoder states (stages alignment, stage1, stage2); made when it is missing.
        lora_rank: train the decoder by low-rank updates of this rank (stage2); 0: it stays frozen.
        noise: of the decoder's soft tokens in its text stage.
        threads: of torch; workers: processes that make samples.
    """

    stage: Stage
    output: str
    samples: int
    batch_size: int
    steps: int
    learning_rate: float
    start_from: tuple[str, ...] = ()
    warmup_steps: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    seed: int = 0
    turns: int = 5
    weigh: Literal["tokens", "answers"] = "tokens"
    words: bool = False
    emphasis: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tokenizer: str = "runs/tiny/tokenizer"
    features: str | None = None
    lora_rank: int = 0
    noise: float = 0.25
    threads: int = 1
    workers: int = 1
    save_steps: int = 500
    log_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "steps", "turns", "threads", "save_steps", "log_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, found {self.learning_rate}")
        if self.stage in ("alignment", "stage1", "stage2") and not self.features:
            raise ValueError(f"stage {self.stage} needs a folder for encoder features; add the key 'features'")
        if self.stage in ("alignment", "stage1", "stage2") and not self.start_from:
            raise ValueError(f"stage {self.stage} builds on trained parts; add the key 'start_from'")
