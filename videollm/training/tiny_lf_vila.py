"""The shape of the embedded LF-VILA, `tiny_lf_vila`, before any training."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.bert.tokenization_bert import BertTokenizer

from videollm.data.dialogue import caption, measure, narrations
from videollm.data.drawing import render
from videollm.data.stories import KINDS
from videollm.data.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, draw_scene
from videollm.models.lf_vila import LfVilaConfig, LfVilaForPreTraining, LfVilaImageProcessor, LfVilaProcessor

WIDTH = 128
EYE_SEEDS = 500_000_000
"""Scenes from here on teach the eye; stories are of lower ones."""
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SCENES_READ = 200


def tiny_lf_vila_config(vocab_size: int, mtc_weight: float = 0.25) -> LfVilaConfig:
    """The architecture of LF-VILA at about two hundredths of its width: windows of 2, 4 and 16 frames, BERT in two."""
    return LfVilaConfig(
        video_config={
            "image_size": [48, 48], "patch_size": [6, 6], "embed_dim": WIDTH // 4, "depths": [1, 2, 2],
            "num_heads": [1, 2, 4], "window_sizes": [[2, 4, 4], [4, 4, 4], [16, 2, 2]], "merge_after": [0, 1],
            "local_window": 4, "pool_size": [1, 1], "drop_path_rate": 0.0,
        },
        text_config={
            "hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 3 * WIDTH,
            "vocab_size": vocab_size, "max_position_embeddings": 256, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        sentence_layers=2, paragraph_layers=2, num_frames=16, num_clips=4, max_sentence_tokens=24,
        mtc_weight=mtc_weight,
    )  # fmt: skip


def build_tiny_lf_vila(seed: int = 0, mtc_weight: float = 0.25) -> tuple[LfVilaForPreTraining, LfVilaProcessor]:
    """`tiny_lf_vila` with random weights, and its processor.

    Args:
        seed: of the weights.
        mtc_weight: of the loss that orders moments in time.
    """
    tokenizer = _tokenizer()
    config = tiny_lf_vila_config(len(tokenizer), mtc_weight)
    torch.manual_seed(seed)
    model = LfVilaForPreTraining(config)
    start_well(model)
    images = LfVilaImageProcessor(size=config.video_config.image_size)
    return model, LfVilaProcessor(
        images, tokenizer, config.num_clips, config.max_sentence_tokens, num_frames=config.num_frames
    )


def _tokenizer() -> BertTokenizer:
    """BERT's word pieces, over the words of the world and single letters."""
    words: set[str] = set()
    for seed in range(_SCENES_READ):
        scene = draw_scene(seed, KINDS[seed % len(KINDS)])
        said = [caption(scene, measure(render(scene, [0.0], 16))), *(text for _, text in narrations(scene))]
        words |= {word.strip(".,").lower() for text in said for word in text.split()}
    signs = [*string.ascii_lowercase, *string.digits, *".,;:!?'-"]
    pieces = [f"##{sign}" for sign in (*string.ascii_lowercase, *string.digits)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join([*_SPECIAL, *signs, *sorted(words - set(signs)), *pieces]) + "\n", encoding="utf-8")
        return BertTokenizer(vocab=str(path), do_lower_case=True)


@torch.no_grad()
def start_well(model: LfVilaForPreTraining) -> None:
    """Deviation 1 / sqrt(inputs) instead of the published 0.02, which is for layers a thousand wide."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)


# ---- the eye: what Swin's weights are to the published model

_CLASSES = [*([1 + len(SHAPES), 1 + len(MOTIONS)] * len(COLOURS)), len(BACKGROUNDS)]
_EYE_SCENES = 20_000
_EYE_STEPS, _EYE_BATCH, _EYE_FRAMES, _EYE_RATE = 2_000, 64, 4, 2e-3


class EyeObjective(nn.Module):
    """Which things are in a single scene, how they move, and on what ground, told by the whole and by local features.

    Args:
        model: whose video encoder learns.
    """

    def __init__(self, model: LfVilaForPreTraining) -> None:
        super().__init__()
        self.model = model
        width = model.config.video_config.hidden_size
        self.heads = nn.ModuleDict({reach: nn.Linear(width, sum(_CLASSES)) for reach in ("whole", "local")})

    def learned(self) -> list[nn.Parameter]:
        """What learns: the encoder, and the heads, which are not kept."""
        return [*self.model.video_encoder.parameters(), *self.heads.parameters()]

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss, and the shares of right answers.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``.
            labels: int64 ``(B, 2 x colours + 1)``: of each colour the shape and the motion, 0 where it is not
                there, and the ground.
        """
        seen = self.model.encode_video(pixel_values, local=True)
        losses, right = [], []
        for reach, tokens in (("whole", seen.tokens), ("local", seen.local_tokens)):
            assert tokens is not None
            answers = self.heads[reach](tokens.mean(dim=(1, 2))).float().split(_CLASSES, dim=1)
            losses += [functional.cross_entropy(answer, labels[:, i]) for i, answer in enumerate(answers)]
            right.append(torch.stack([answer.argmax(dim=1) for answer in answers], dim=1) == labels)
        there = labels[:, :-1:2] > 0
        both = torch.stack(right).float().mean(dim=0)
        return {
            "loss": torch.stack(losses).sum() / 2,
            "shapes": both[:, :-1:2][there].mean(),
            "motions": both[:, 1::2][there].mean(),
            "grounds": both[:, -1].mean(),
        }


@lru_cache(maxsize=_EYE_SCENES)
def _eye_scene(number: int) -> tuple[Scene, tuple[int, ...]]:
    seed, kind = EYE_SEEDS + number, KINDS[number % len(KINDS)]
    scene = draw_scene(seed, kind)
    while not scene.timed:
        seed += _EYE_SCENES
        scene = draw_scene(seed, kind)
    labels = [0] * len(_CLASSES)
    for thing in scene.things:
        assert thing.motion is not None
        place = 2 * COLOURS.index(thing.colour)
        labels[place : place + 2] = 1 + SHAPES.index(thing.shape), 1 + MOTIONS.index(thing.motion)
    ground = scene.shots[0].ground.colour
    assert ground is not None
    labels[-1] = BACKGROUNDS.index(ground)
    return scene, tuple(labels)


def eye_batch(processor: LfVilaProcessor, position: int, size: int, frames: int) -> dict[str, torch.Tensor]:
    """Scenes that the eye learns from, ``size`` of them from a position on: the arguments of `EyeObjective`."""
    images = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    pixels, labels = [], []
    for number in range(position, position + size):
        scene, told = _eye_scene(number % _EYE_SCENES)
        moments = (np.arange(frames) + np.random.default_rng([number, 37]).random()) / frames
        pixels.append(images(render(scene, moments * scene.duration_seconds, max(images.size))))
        labels.append(told)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


def learn(
    parameters: list[nn.Parameter],
    loss: Callable[[int], torch.Tensor],
    steps: int,
    learning_rate: float,
    told: Callable[[int], None] = lambda step: None,
) -> None:
    """A loop of optimisation in bfloat16 on a CPU: AdamW, its rate by the library's one-cycle rule.

    Args:
        parameters: that learn.
        loss: of a step.
        steps, learning_rate: of the run, at least 3 steps; the rate is the highest.
        told: called behind each step.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    rise = max(0.1, 2 / steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=rise)
    for step in range(steps):
        # Attention of so few tokens is faster in plain arithmetic than fused.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        told(step)


def make_eye(path: Path, steps: int = _EYE_STEPS) -> None:
    """Teach a video encoder single scenes of four frames, and write its weights to a file."""
    model, processor = build_tiny_lf_vila(0)
    objective = EyeObjective(model).train()

    def loss(step: int) -> torch.Tensor:
        found = objective(**eye_batch(processor, step * _EYE_BATCH, _EYE_BATCH, _EYE_FRAMES))
        if step % 100 == 99:
            print(f"eye {step + 1}: " + ", ".join(f"{name} {value.item():.2f}" for name, value in found.items()))
        return found["loss"]

    learn(objective.learned(), loss, steps, _EYE_RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.video_encoder.state_dict().items()}, path)
