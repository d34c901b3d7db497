"""`tiny_imagebind`: ImageBind's audio and text trunks at small size, which learn sounds of the drawn world and words.

The audio trunk begins with the ear of `tiny`, which hears half seconds; here a segment has two seconds, as published,
and a stretch is the mean of its segments' vectors.

Notation: B stretches and as many texts, S segments, F mel bins, W fbank frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from videollm.data.world_sounds import Heard, Statement, draw_statement, draw_track, wording
from videollm.models import hub
from videollm.models.imagebind import (
    ImageBindAudioConfig,
    ImageBindAudioModel,
    ImageBindConfig,
    ImageBindModel,
    ImageBindTextConfig,
)
from videollm.models.imagebind.processing_imagebind import ImageBindProcessor
from videollm.models.video_llama import VideoLlamaFeatureExtractor
from videollm.models.video_llama.feature_extraction_video_llama import kaldi_fbank
from videollm.training.tiny_lavila import clip_tokenizer

SEGMENT_SECONDS = 2.0
STRETCH_SECONDS = 4.0
"""What a text is about; as long as a window of an index is by default."""
SOUND_SEEDS = 700_000_000
MAX_TEXT_TOKENS = 32
_FBANK_HZ = 100
_TARGET_LENGTH = 200
_WIDTH = 96
_TEXTS_READ = 3_000


def build_tiny_imagebind(seed: int = 0) -> tuple[ImageBindModel, ImageBindProcessor]:
    """It, before its training."""
    ear = hub.read_config(hub.find("tiny")).audio_config
    tokenizer = clip_tokenizer(_texts())
    torch.manual_seed(seed)
    shape = {name: getattr(ear, name) for name in (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_mel_bins", "patch_size",
        "patch_stride",
    )}  # fmt: skip
    model = ImageBindModel(ImageBindConfig(
        audio_config=ImageBindAudioConfig(**shape, target_length=_TARGET_LENGTH, projection_dim=_WIDTH),
        text_config=ImageBindTextConfig(
            vocab_size=len(tokenizer), hidden_size=_WIDTH, intermediate_size=4 * _WIDTH, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=MAX_TEXT_TOKENS, projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            initializer_range=_WIDTH**-0.5,
        ),
    ))  # fmt: skip
    assert model.audio_model is not None
    _hear_as_tiny(model.audio_model)
    told: Any = hub.read_processor(hub.find("tiny")).feature_extractor
    sound = VideoLlamaFeatureExtractor(
        told.sampling_rate, SEGMENT_SECONDS, told.num_mel_bins, _TARGET_LENGTH, told.mean, told.std
    )
    return model, ImageBindProcessor(sound, tokenizer, MAX_TEXT_TOKENS)


@torch.no_grad()
def _hear_as_tiny(audio: ImageBindAudioModel) -> None:
    """Give a trunk the ear of `tiny`; its times are stretched over the longer segment."""
    ear: Any = hub.load("tiny", device="cpu", dtype="float32")[0].audio_model
    for name in ("patch_embedding", "stem_layernorm", "blocks", "head_layernorm", "head_projection"):
        getattr(audio, name).load_state_dict(getattr(ear, name).state_dict())
    audio.cls_token.copy_(ear.cls_token)
    width = ear.config.hidden_size
    table = ear.position_embedding[:, 1:].reshape(1, *ear.config.grid, width).permute(0, 3, 1, 2)
    stretched = functional.interpolate(table, size=audio.config.grid, mode="bilinear", align_corners=True)
    audio.position_embedding[:, :1] = ear.position_embedding[:, :1]
    audio.position_embedding[:, 1:] = stretched.permute(0, 2, 3, 1).reshape(1, -1, width)


def _texts() -> list[str]:
    """Sentences to learn a vocabulary from."""
    rng = np.random.default_rng(11)
    kinds = ("hum", "beeps", "noise", "rising tone", "falling tone", "clicks", "music", "speech")
    texts = []
    for _ in range(_TEXTS_READ):
        heard = [Heard(str(kind), int(rng.integers(1, 5))) for kind in rng.permutation(kinds)[: int(rng.integers(3))]]
        texts.append(wording(draw_statement(heard, rng), rng))
    return texts


class SoundStretches:
    """Stretches of tracks with a true text each; what is at a position is a function of the seed.

    Args:
        processor: whose feature extractor makes the mel images.
        tracks: how many are drawn; other stretches of them come again.
        seed: of tracks and stretches.
        held_out: texts in ways that no training sees.
    """

    def __init__(self, processor: ImageBindProcessor, tracks: int, seed: int, held_out: bool = False) -> None:
        self.processor, self.seed, self.held_out = processor, seed, held_out
        sound: Any = processor.feature_extractor
        self.rate_hz, self.count = sound.sampling_rate, tracks
        self._first = SOUND_SEEDS + seed * 1_000_000
        self._drawn: dict[int, tuple[torch.Tensor, Any]] = {}

    def _track(self, number: int) -> tuple[torch.Tensor, Any]:
        """Filter banks of a track, float16 ``(W, F)``, and what is heard in it."""
        if number not in self._drawn:
            track = draw_track(self._first + 2 * number, self.rate_hz)
            # As much silence behind it as makes it a stretch long.
            missing = max(0, round((STRETCH_SECONDS + 0.1) * self.rate_hz) - len(track.samples))
            samples = torch.from_numpy(np.pad(track.samples, (0, missing)))[None]
            sound: Any = self.processor.feature_extractor
            self._drawn[number] = (kaldi_fbank(samples, self.rate_hz, sound.num_mel_bins)[0].half(), track)
        return self._drawn[number]

    def batch(self, position: int, size: int) -> dict[str, Any]:
        """Stretches from a position on, with their texts.

        Returns:
            ``audio_values`` float32 ``(B, S, 1, F, W)``; ``texts``, B of them; ``heard``, what is heard in each;
            ``statements``, what each text states.
        """
        sound: Any = self.processor.feature_extractor
        frames = 1 + round((SEGMENT_SECONDS - 0.025) * _FBANK_HZ)
        values, texts, heard, statements = [], [], [], []
        for place in range(position, position + size):
            rng = np.random.default_rng([self.seed, place, 61])
            banks, track = self._track(place % self.count)
            start = int(rng.integers(0, len(banks) - round(STRETCH_SECONDS * _FBANK_HZ) + 3))
            parts = [banks[start + round(at * _FBANK_HZ) :][:frames] for at in (0.0, SEGMENT_SECONDS)]
            images = torch.stack(
                [functional.pad(part.float().T, (0, sound.target_length - len(part))) for part in parts]
            )
            values.append(((images - sound.mean) / sound.std)[:, None])
            seconds = start / _FBANK_HZ
            heard.append(track.heard(seconds, seconds + STRETCH_SECONDS))
            statements.append(draw_statement(heard[-1], rng))
            texts.append(wording(statements[-1], rng, self.held_out))
        return {"audio_values": torch.stack(values), "texts": texts, "heard": heard, "statements": statements}


def truth(heard: Sequence[Sequence[Heard]], statements: Sequence[Statement]) -> torch.Tensor:
    """Whether each statement is true of each stretch: bool ``(stretches, statements)``."""
    return torch.tensor([[statement.is_true(one) for statement in statements] for one in heard])


def sound_vectors(model: ImageBindModel, audio_values: torch.Tensor) -> torch.Tensor:
    """Stretches of S segments, float ``(B, S, 1, F, W)``, as unit vectors float ``(B, D)``."""
    assert model.audio_model is not None
    each = model.audio_model(audio_values.flatten(0, 1)).unflatten(0, audio_values.shape[:2])
    return functional.normalize(each.float().mean(dim=1), dim=-1)


class SoundTextObjective(nn.Module):
    """Both ways of choosing, among the stretches of a batch for a text and the reverse; all that is true counts.

    Source: ImageBind (2023), section 3.2, with the targets of supervised contrastive learning (Khosla et al. 2020):
    in a world of eight sounds a batch holds the same sound more than once.
    """

    def __init__(self, model: ImageBindModel, processor: ImageBindProcessor) -> None:
        super().__init__()
        self.model, self.processor = model, processor

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """The loss of a batch of `SoundStretches`."""
        assert self.model.text_model is not None
        heard = sound_vectors(self.model, batch["audio_values"])
        words = self.model.text_model(**self.processor.texts(batch["texts"])).float()
        logits, targets = heard @ words.T, truth(batch["heard"], batch["statements"]).float()
        losses = [
            -(functional.log_softmax(one, dim=1) * aim / aim.sum(dim=1, keepdim=True)).sum(dim=1).mean()
            for one, aim in ((logits, targets), (logits.T, targets.T))
        ]
        return torch.stack(losses).mean()


@torch.inference_mode()
def scores(model: ImageBindModel, processor: ImageBindProcessor, held: SoundStretches, count: int) -> dict[str, float]:
    """How often what is nearest to a text is a stretch of which it is true, and the average precision.

    Args:
        model, processor: what is scored.
        held: stretches, which are the gallery and of which the texts are.
        count: how many.

    Returns:
        shares: "first is true", "average precision", and "chance" of the first.
    """
    assert model.text_model is not None
    batch = held.batch(0, count)
    heard = torch.cat([sound_vectors(model, part) for part in batch["audio_values"].split(32)])
    words = model.text_model(**processor.texts(batch["texts"]))
    true = truth(batch["heard"], batch["statements"]).T.float()
    ranked = true.gather(1, (words @ heard.T).argsort(dim=1, descending=True))
    precision = ranked.cumsum(dim=1) / torch.arange(1, count + 1)
    return {
        "first is true": float(ranked[:, 0].mean()),
        "average precision": float(((precision * ranked).sum(dim=1) / ranked.sum(dim=1)).mean()),
        "chance": float(true.mean()),
    }
