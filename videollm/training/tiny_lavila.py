"""The shapes of LaViLa's models at small size, before their training: `tiny_dual_encoder`, `tiny_narrator` and
`tiny_rephraser`.

As LaViLa's encoders begin with an image model's weights, these begin with the eye of `tiny`, which learned what is
where in single drawn frames; what looks along time is new.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTokenizer,
    GPT2Config,
    GPT2Tokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from videollm.data.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES
from videollm.data.world_motion import MotionClips, collate_motion
from videollm.models import hub
from videollm.models.imagebind.text_tokenizer import byte_letters
from videollm.models.lavila import (
    LavilaClassifierConfig,
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaNarratorConfig,
    LavilaProcessor,
    LavilaVisionConfig,
    LavilaVisionModel,
    Rephraser,
)
from videollm.training.lavila import NARRATOR_LEARNS, begin
from videollm.training.order import Revisited
from videollm.training.pieces import Pieces
from videollm.training.recipe import LavilaRecipe
from videollm.training.start import save_trained

FRAMES = 4
MAX_TEXT_TOKENS = 48
_MERGES = 400
_WIDTH = 128
_START, _END = "<|startoftext|>", "<|endoftext|>"


# --- words ------------------------------------------------------------------------------------------------------------


def clip_tokenizer(texts: Sequence[str]) -> CLIPTokenizer:
    """A tokenizer of CLIP's kind with merges learned from texts; its end token has the largest id, as CLIP needs."""
    letters = [*byte_letters(), *(f"{letter}</w>" for letter in byte_letters())]

    def of(merges: list[Any]) -> CLIPTokenizer:
        names = [*letters, *("".join(merge) for merge in merges), _START, _END]
        return CLIPTokenizer(vocab={name: place for place, name in enumerate(names)}, merges=merges)

    return of(_learned(of([]), texts, len(letters)))


def gpt2_tokenizer(texts: Sequence[str]) -> GPT2Tokenizer:
    """A tokenizer of GPT-2's kind with merges learned from texts."""

    def of(merges: list[Any]) -> GPT2Tokenizer:
        names = [*byte_letters(), *("".join(merge) for merge in merges), _END]
        return GPT2Tokenizer(vocab={name: place for place, name in enumerate(names)}, merges=merges)

    return of(_learned(of([]), texts, len(byte_letters())))


def t5_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer for the rephraser: padding 0 and end 1, as T5's; bytes and merges of them instead of its pieces."""
    merges = _learned(gpt2_tokenizer(()), texts, len(byte_letters()))
    names = ["<pad>", "</s>", "<unk>", *byte_letters(), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )


def _learned(empty: Any, texts: Sequence[str], letters: int) -> list[tuple[str, str]]:
    """Merges of words cut as the tokenizer cuts them."""
    if not texts:
        return []
    trained = empty.train_new_from_iterator(texts, letters + _MERGES, show_progress=False)
    return [tuple(merge) for merge in json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]]


# --- models -----------------------------------------------------------------------------------------------------------


def vision_config() -> LavilaVisionConfig:
    """The space-time encoder's shape: that of `tiny`'s eye, and attention along time."""
    eye = hub.read_config(hub.find("tiny")).vision_config
    return LavilaVisionConfig(
        hidden_size=eye.hidden_size,
        intermediate_size=eye.intermediate_size,
        num_hidden_layers=eye.num_hidden_layers,
        num_attention_heads=eye.num_attention_heads,
        image_size=eye.image_size,
        patch_size=eye.patch_size,
        hidden_act=eye.hidden_act,
        layer_norm_eps=eye.layer_norm_eps,
        patch_bias=True,
        pre_layernorm=False,
        num_frames=FRAMES,
    )


@torch.no_grad()
def see_as_tiny(vision: LavilaVisionModel) -> None:
    """Give an encoder the eye of `tiny`, and let it look along time from the first step.

    Times are far from each other, and two heads of attention along time begin as the difference of what is a frame
    ahead and a frame back, two more as that of two frames. Beginning as nothing, as published, no motion was learned in
    a run as short as these.
    """
    eye: Any = hub.load("tiny", device="cpu")[0].vision_model
    vision.patch_embedding.load_state_dict(eye.embeddings.patch_embedding.state_dict())
    vision.class_token.copy_(eye.embeddings.class_embedding)
    vision.position_embedding.copy_(eye.embeddings.position_embedding)
    vision.layernorm.load_state_dict(eye.post_layernorm.state_dict())
    draw = torch.Generator().manual_seed(0)
    width, frames = vision.config.hidden_size, vision.config.num_frames

    def codes(size: int) -> torch.Tensor:
        """A vector of length 1 for each time, float ``(T, size)``, at right angles."""
        return torch.linalg.qr(torch.randn(size, frames, generator=draw))[0].T

    times = codes(width)
    vision.time_embedding.copy_(5 * times)
    for block, layer in zip(vision.blocks, eye.encoder.layers, strict=True):
        block.norm_time.load_state_dict(layer.layer_norm1.state_dict())
        block.norm_space.load_state_dict(layer.layer_norm1.state_dict())
        block.norm_mlp.load_state_dict(layer.layer_norm2.state_dict())
        block.space_attention.qkv.load_state_dict(layer.self_attn.qkv.state_dict())
        block.space_attention.proj.load_state_dict(layer.self_attn.projection.state_dict())
        block.mlp.load_state_dict(layer.mlp.state_dict())
        over_time = block.time_attention
        heads = over_time.num_heads
        query, key, value = over_time.qkv.weight.view(3, heads, -1, width)
        out = over_time.proj.weight.view(width, heads, -1)
        for head, step in zip(range(heads), (1, -1, 2, -2) * heads, strict=False):
            names = codes(query.shape[1])
            wanted = (torch.arange(frames) + step).clamp(0, frames - 1)
            key[head] = 1.5 * names.T @ times
            query[head] = 1.5 * names[wanted].T @ times
            if step > 0:
                value[head] = torch.randn(value[head].shape, generator=draw) * width**-0.5
                out[:, head] = torch.randn(out[:, head].shape, generator=draw) * 0.12
            else:
                value[head], out[:, head] = value[head - 1], -out[:, head - 1]
        over_time.qkv.bias.zero_()
        over_time.proj.bias.zero_()


def _image_processor() -> LavilaImageProcessor:
    told = hub.read_processor(hub.find("tiny")).image_processor
    mean, std = ([255 * value for value in values] for values in (told.image_mean, told.image_std))
    return LavilaImageProcessor(told.size, mean, std, FRAMES)


def build_dual_encoder(seed: int, texts: Sequence[str]) -> tuple[LavilaDualEncoder, LavilaProcessor]:
    """`tiny_dual_encoder` before its training."""
    tokenizer = clip_tokenizer(texts)
    torch.manual_seed(seed)
    model = LavilaDualEncoder(LavilaDualEncoderConfig(
        vision_config=vision_config(),
        text_config=CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=_WIDTH, intermediate_size=4 * _WIDTH, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=MAX_TEXT_TOKENS, projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        ),
        projection_dim=_WIDTH,
        initializer_range=_WIDTH**-0.5,
    ))  # fmt: skip
    see_as_tiny(model.vision_model)
    return model, LavilaProcessor(_image_processor(), tokenizer, "clip", MAX_TEXT_TOKENS)


def build_narrator(seed: int, texts: Sequence[str]) -> tuple[LavilaNarrator, LavilaProcessor]:
    """`tiny_narrator` before its training. Its gates begin open: there is no large decoder that would be disturbed."""
    tokenizer = gpt2_tokenizer(texts)
    std, end = _WIDTH**-0.5, tokenizer.eos_token_id
    torch.manual_seed(seed)
    model = LavilaNarrator(LavilaNarratorConfig(
        vision_config=vision_config(),
        text_config=GPT2Config(
            vocab_size=len(tokenizer), n_embd=_WIDTH, n_layer=3, n_head=4, n_positions=MAX_TEXT_TOKENS,
            initializer_range=std, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, bos_token_id=end, eos_token_id=end,
        ),
        num_query_tokens=32,
        pool_head_dim=_WIDTH,  # all heads share one value: narrower than the eye, it would not hold a clip's facts
        max_text_tokens=MAX_TEXT_TOKENS,
        initializer_range=std,
    ))  # fmt: skip
    see_as_tiny(model.vision_model)
    with torch.no_grad():
        for name, gate in model.named_parameters():
            if name.endswith(("alpha_cattn", "alpha_dense")):
                gate.fill_(1.0)
    return model, LavilaProcessor(_image_processor(), tokenizer, "gpt2", MAX_TEXT_TOKENS)


def build_rephraser(seed: int, texts: Sequence[str]) -> Rephraser:
    """`tiny_rephraser` before its training."""
    tokenizer = t5_tokenizer(texts)
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=len(tokenizer), d_model=_WIDTH, d_kv=32, d_ff=4 * _WIDTH, num_layers=3, num_decoder_layers=2,
        num_heads=4, dropout_rate=0.0, relative_attention_max_distance=64, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    _look_at_neighbours(model)
    return Rephraser(model, tokenizer)


@torch.no_grad()
def _look_at_neighbours(model: T5ForConditionalGeneration) -> None:
    """Let heads begin by looking one word and two words back, and in the encoder two more at the words that follow.

    Places count for nothing at T5's own start, and a model of this size then stayed with words without an order: it
    knew the colours of a sentence, not which of them is the ground's.
    """
    ahead = model.config.relative_attention_num_buckets // 2  # behind it the buckets of what comes later
    encoder, decoder = (
        stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight for stack in (model.encoder, model.decoder)
    )
    for head, distance in ((0, 1), (1, 2)):
        decoder[distance, head] = 4.0
        encoder[distance, head] = 4.0
        encoder[ahead + distance, head + 2] = 4.0


# --- the eye along time -----------------------------------------------------------------------------------------------


def build_eye(seed: int) -> tuple[LavilaForVideoClassification, LavilaImageProcessor]:
    """What the encoders of clips begin with, before it learned to look along time: a classifier of what is in a clip.

    Heads: for each colour the shape of its thing (0: there is none), for each its motion, and the background.
    """
    torch.manual_seed(seed)
    classes = [1 + len(SHAPES)] * len(COLOURS) + [1 + len(MOTIONS)] * len(COLOURS) + [1 + len(BACKGROUNDS)]
    model = LavilaForVideoClassification(
        LavilaClassifierConfig(vision_config=vision_config(), num_classes=classes, classifier_dropout=0.0)
    )
    see_as_tiny(model.vision_model)
    return model, _image_processor()


class MotionObjective(nn.Module):
    """What is where and how it moves: on every patch, and in the whole clip."""

    accepts_loss_kwargs = False

    def __init__(self, model: LavilaForVideoClassification) -> None:
        super().__init__()
        self.model = model
        width = model.config.vision_config.hidden_size
        self.patch_colour = nn.Linear(width, 1 + len(COLOURS))
        self.patch_shape = nn.Linear(width, 1 + len(SHAPES))
        self.patch_motion = nn.Linear(width, 1 + len(MOTIONS))
        self.metrics: dict[str, torch.Tensor] = {}

    def forward(self, pixel_values: torch.Tensor, **labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """A batch of `MotionClips`."""
        states = self.model.vision_model(pixel_values).last_hidden_state.float()
        losses: dict[str, torch.Tensor] = {}
        # Most patches show no thing: those that do weigh as much as all others together.
        for name, weight in (("patch_colour", 0.25), ("patch_shape", 0.25), ("patch_motion", 0.5)):
            logits = getattr(self, name)(states[:, 1:]).flatten(0, 1)
            wanted = labels[name].flatten()
            each = functional.cross_entropy(logits, wanted, reduction="none")
            covered = wanted > 0
            losses[name] = weight * (each.mean() + (each * covered).sum() / covered.sum().clamp(min=1))
            self.metrics[f"{name}_right"] = (logits.argmax(-1) == wanted)[covered].float().mean()
        clip = [head(states[:, 0]) for head in self.model.heads]
        count = len(COLOURS)
        for name, logits in (("shape", clip[:count]), ("motion", clip[count:-1])):
            found, wanted = torch.stack(logits, 1).flatten(0, 1), labels[name].flatten()
            rare = torch.ones(found.shape[-1], device=found.device)
            rare[0] = 0.3
            losses[name] = 2 * functional.cross_entropy(found, wanted, rare)
            self.metrics[f"{name}_right"] = (found.argmax(-1) == wanted)[wanted > 0].float().mean()
        losses["background"] = 0.3 * functional.cross_entropy(clip[-1], labels["background"])
        self.metrics.update({name: loss.detach() for name, loss in losses.items()})
        return {"loss": torch.stack(list(losses.values())).sum()}


def eye_pieces(recipe: LavilaRecipe, clips: int) -> Pieces:
    """What the run of the eye along time is made of.

    Args:
        recipe: of stage "classifier"; its model is of `build_eye`.
        clips: how many different ones there are.
    """
    model, processor = begin(recipe)
    vision = model.config.vision_config
    data = MotionClips(processor, vision.image_size // vision.patch_size, clips, recipe.seed)
    return Pieces(
        model=model,
        objective=MotionObjective(model),
        data=Revisited(data, recipe.seed),
        collate=collate_motion,
        save_model=lambda folder: save_trained(lambda: begin(recipe), recipe.output, folder),
        source="clips of moving things",
    )


# --- the words --------------------------------------------------------------------------------------------------------


class WordsObjective(nn.Module):
    """Sentences without a clip: what the published narrator's GPT-2 read before it looked at anything."""

    accepts_loss_kwargs = False

    def __init__(self, model: LavilaNarrator) -> None:
        super().__init__()
        self.model = model
        self.metrics: dict[str, torch.Tensor] = {}

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """A batch of a narrator's `LavilaProcessor.texts`."""
        return {"loss": self.model(input_ids=input_ids, labels=labels, use_cache=False).loss}


def words_pieces(recipe: LavilaRecipe, texts: Sequence[str]) -> Pieces:
    """What the run of the narrator's decoder before its first clip is made of.

    Args:
        recipe: of stage "narrator"; its model is of `build_narrator`.
        texts: that it reads.
    """
    model, processor = begin(recipe)
    for name, parameter in model.named_parameters():
        looks = any(part in name for part in NARRATOR_LEARNS)
        parameter.requires_grad_(name.startswith("language_model.") and not looks)
    return Pieces(
        model=model,
        objective=WordsObjective(model),
        data=Revisited(texts, recipe.seed),
        collate=processor.texts,
        save_model=lambda folder: save_trained(lambda: begin(recipe, say=False), recipe.output, folder),
        source="sentences without clips",
    )


@torch.no_grad()
def look_at_whole_clips(narrator: LavilaNarrator, vision: LavilaVisionModel, clips: torch.Tensor) -> None:
    """Let a quarter of what the decoder sees begin as the class token, in which the eye has gathered a clip.

    Args:
        narrator: before its training.
        vision: the eye that it will have.
        clips: float ``(B, T, 3, H, W)``, a few.
    """
    pool = narrator.visual_pool
    states = functional.layer_norm(vision(clips).last_hidden_state, (vision.config.hidden_size,))
    patches = states[:, 1:].flatten(0, 1)
    apart = states[:, 0].mean(0) - patches.mean(0)
    # The direction that tells a class token from any patch: what patches differ in among each other is left out.
    direction = torch.linalg.solve(patches.T.cov() + 0.01 * torch.eye(len(apart)), apart)
    size, count = pool.to_key_value.out_features // 2, len(pool.queries) // 4
    mark = torch.ones(pool.queries.shape[1])
    mark[1::2] = -1.0
    pool.queries[:count] += mark  # far more than what the others have of it
    query = pool.to_query.weight.view(pool.num_heads, size, -1)
    # The first number of each head's queries and of the keys speaks of nothing else: e^8 times what a patch gets.
    query[:, 0] = mark / mark.norm() ** 2 * 8 * size**0.5
    pool.to_key_value.weight[0] = direction / (direction @ apart)


def _attend_plainly(folder: Path) -> None:
    """Let a model that is saved learn with attention as plain products: for groups of five tokens on a CPU, torch's
    fused attention makes a step 2.4 times as long."""
    path = folder / "config.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**told, "attn_implementation": "eager"}, indent=2), encoding="utf-8")


def save_start(folder: str | Path, texts: Sequence[str], seed: int = 0) -> None:
    """What the loop begins with, each in a folder of its own: eye, dual_encoder and rephraser."""
    target = Path(folder)
    for name, parts in (("dual_encoder", build_dual_encoder(seed, texts)), ("eye", build_eye(seed))):
        for part in parts:
            part.save_pretrained(target / name)
        _attend_plainly(target / name)
    build_rephraser(seed, texts).save_pretrained(target / "rephraser")


def save_narrator_start(
    folder: str | Path, texts: Sequence[str], baseline: str | Path, frames: Sequence[np.ndarray], seed: int = 0
) -> None:
    """What the narrator begins with, which looks at clips through the baseline dual encoder's eye, as published.

    Args:
        folder: to write.
        texts: to learn a tokenizer from.
        baseline: folder of the dual encoder that learned from people's sentences.
        frames: of a few clips, each uint8 ``(T, H, W, 3)``.
        seed: of the weights.
    """
    model, processor = build_narrator(seed, texts)
    seen = LavilaDualEncoder.from_pretrained(baseline, local_files_only=True).eval()
    look_at_whole_clips(model, seen.vision_model, processor.clips(frames)["pixel_values"])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    _attend_plainly(Path(folder))
