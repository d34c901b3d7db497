"""What a recipe will take on each GPU: memory, operations and time, computed on any machine without weights or a GPU.

A step of the run, at full size, is carried out on tensors that have sizes and no numbers (torch's FakeTensorMode):
every tensor that is alive is counted, and so is every multiplication. Weights are counted as they will be kept. What
CUDA itself takes and what its allocator loses is not in the figures: leave a tenth free. With gradient checkpointing
the figure is too high by about a fifth, with low-rank updates too by about a half (scripts/bench/training.py).

    python scripts/plan_training.py RECIPE... [--shape SIZE|DIR] [--processes N] [--set KEY=VALUE]

A size is 7b or 13b of Video-LLaMA; base, large or large_336px of LaViLa; LF-VILA and the rephraser have one, published.

Time is the operations at ``--share`` of the chip's peak (``--peak`` in TFLOP/s of bf16: an A100 has 312, 19.5 of
float32, an H100 989).
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from videollm.models import hub, memory
from videollm.models.lavila import LavilaClassifierConfig, LavilaDualEncoderConfig, LavilaNarratorConfig
from videollm.models.lf_vila import LfVilaConfig, losses, video_encoder
from videollm.models.video_llama import VideoLlamaConfig
from videollm.training import lavila, lf_vila
from videollm.training.freeze import freeze, rest
from videollm.training.recipe import LavilaRecipe, LfVilaRecipe, Recipe, VideoLlamaRecipe, read_recipe
from videollm.training.start import changed

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SEGMENTS = 8, 8
"""Of a clip, as published."""
REQUEST_TOKENS = 96
"""Of the words around a caption that is asked for, in the longest of the published templates; rounded up."""
A100_TFLOPS, A100_FP32_TFLOPS, SHARE = 312.0, 19.5, 0.4
CHOICES = 4
"""Of a question of How2QA."""
GIB = 2**30


class AliveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as they are alive; to a fiftieth of the peak.

    Args:
        known: tensors that were there before.
    """

    def __init__(self, known: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = self._step = 0
        self._known = {value.untyped_storage()._cdata for value in known}

    def __enter__(self) -> Any:
        gc.collect()
        gc.freeze()  # what is there already needs no looking through
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        gc.unfreeze()

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(value, torch.Tensor):
                continue
            storage = value.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
                if self.now > self.peak + self._step:
                    # Tensors in cycles are not alive: a run that is not watched lets them go sooner.
                    gc.collect()
                    self.peak = max(self.peak, self.now)
                    self._step = self.peak // 50
        return result


@dataclass(frozen=True)
class TrainingPlan:
    """What one GPU takes.

    Attributes:
        parameters, learning: of the model, and of those what learns.
        weights_bytes: as they are kept while it trains.
        step_bytes: the most that is alive beside them: gradients, states of the optimiser, activations.
        batch: samples in a pass of one GPU.
        tokens: of a sample, padded: of text, and of what is shown where a decoder reads both.
        operations: of a step of one GPU, all its passes together; a multiplication and an addition are two.
        half: they are made in bf16.
    """

    parameters: int
    learning: int
    weights_bytes: int
    step_bytes: int
    batch: int
    tokens: int
    operations: float
    half: bool = True

    @property
    def bytes(self) -> int:
        return self.weights_bytes + self.step_bytes

    def seconds(self, peak_tflops: float | None = None, share: float = SHARE) -> float:
        """Of a step; on an A100, unless another peak is given."""
        peak_tflops = peak_tflops or (A100_TFLOPS if self.half else A100_FP32_TFLOPS)
        return self.operations / (peak_tflops * 1e12 * share)


def sample_tokens(recipe: VideoLlamaRecipe, config: VideoLlamaConfig) -> int:
    """Tokens of the longest sample that the recipe admits, padded as its batches are."""
    soft = 0
    if "video" in recipe.branches:
        soft += config.num_video_query_tokens
    if "audio" in recipe.branches:
        soft += config.num_audio_query_tokens
    captions = all(dataset.learned_as == "caption" for dataset in recipe.datasets)
    if captions and recipe.max_caption_tokens is not None:
        asked = REQUEST_TOKENS if any(dataset.requests for dataset in recipe.datasets) else 0
        tokens = 1 + soft + asked + recipe.max_caption_tokens
    else:
        tokens = recipe.max_tokens or config.text_config.max_position_embeddings
    return math.ceil(tokens / 16) * 16


def learner(recipe: Recipe, config: Any) -> Any:
    """The model of a recipe on the meta device, with what learns unfrozen, and low-rank updates where there are any."""
    if not isinstance(recipe, VideoLlamaRecipe):
        return _other_learner(recipe, config)
    model = memory.empty_model(config)
    freeze(model, recipe.stage, recipe.branches)
    if recipe.lora_rank:
        from peft import LoraConfig, inject_adapter_in_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        alpha = recipe.lora_alpha or 2 * recipe.lora_rank
        low_rank = LoraConfig(r=recipe.lora_rank, lora_alpha=alpha, target_modules=targets)  # pyright: ignore
        inject_adapter_in_model(low_rank, model.language_model, low_cpu_mem_usage=True)
    if recipe.gradient_checkpointing:
        model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def _other_learner(recipe: Recipe, config: Any) -> Any:
    with torch.device("meta"):
        if isinstance(recipe, LfVilaRecipe):
            model = lf_vila.MODELS[recipe.stage](config)
            lf_vila.freeze(model, recipe)
        else:
            assert isinstance(recipe, LavilaRecipe)
            model = lavila.MODELS[recipe.stage][0](config)
            lavila.freeze(model, recipe)
        model.tie_weights()
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def place(model: Any, recipe: Recipe) -> int:
    """Move a model from meta to where a `FakeTensorMode` takes it to have numbers; returns the bytes of its weights."""
    # Other families are held in full precision, but by DeepSpeed.
    half = recipe.bf16 and (isinstance(recipe, VideoLlamaRecipe) or recipe.deepspeed is not None)
    bits = getattr(recipe, "bits", None)
    kept = memory.PRECISIONS[f"{bits}-bit" if bits else "bf16" if half else "fp32"]
    number = torch.bfloat16 if half else torch.float32
    size = 0
    # What learns is held in full precision.
    for weight, parameter in zip(memory.weights_of(model), model.parameters(), strict=True):
        size += 4 * parameter.numel() if parameter.requires_grad else weight.bytes(kept)
    moved: dict[torch.nn.Parameter, torch.nn.Parameter] = {}  # tied ones stay one
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if value not in moved:
                made = torch.empty(value.shape, dtype=torch.float32 if value.requires_grad else number)
                moved[value] = torch.nn.Parameter(made, value.requires_grad)
            module.register_parameter(name, moved[value])
        for name, value in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.empty(value.shape, dtype=value.dtype))
    model.train()
    if isinstance(recipe, VideoLlamaRecipe):
        rest(model)
    return size


def step(model: Any, recipe: Recipe, tokens: int, learned: int) -> torch.Tensor:
    """The loss of a batch as large as the recipe makes it; of one piece of it, where it is embedded in pieces."""
    if isinstance(recipe, LavilaRecipe):
        return _lavila_step(model, recipe, tokens)
    if isinstance(recipe, LfVilaRecipe):
        return _lf_vila_step(model, recipe, tokens)
    assert isinstance(recipe, VideoLlamaRecipe)
    config, batch = model.config, recipe.batch_size
    soft = []
    if "video" in recipe.branches:
        size, frame = config.vision_config.image_size, config.qformer_config.hidden_size
        if recipe.features:
            states = torch.zeros(batch, FRAMES, config.num_query_tokens, frame, dtype=torch.bfloat16)
            soft.append(model.get_video_features(frame_states=states, frame_seconds=torch.zeros(batch, FRAMES)))
        else:
            pixels = torch.zeros(batch, FRAMES, 3, size, size)
            soft.append(model.get_video_features(pixels, frame_seconds=torch.zeros(batch, FRAMES)))
    if "audio" in recipe.branches:
        audio = config.audio_config
        seconds = torch.zeros(batch, SEGMENTS)
        if recipe.features:
            states = torch.zeros(batch, SEGMENTS, audio.projection_dim, dtype=torch.bfloat16)
            soft.append(model.get_audio_features(segment_states=states, segment_seconds=seconds))
        else:
            mel = torch.zeros(batch, SEGMENTS, 1, audio.num_mel_bins, audio.target_length)
            soft.append(model.get_audio_features(mel, segment_seconds=seconds))
    rows = torch.cat(soft, dim=1)
    words = model.get_input_embeddings()(torch.zeros(batch, tokens - rows.shape[1], dtype=torch.long))
    embeds = torch.cat([rows.to(words), words], dim=1)
    mask = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
    logits = model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits[:, -learned:].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))


def _lavila_step(model: Any, recipe: LavilaRecipe, tokens: int) -> torch.Tensor:
    batch = min(recipe.batch_size, recipe.piece_size or recipe.batch_size)
    ids = torch.zeros(batch, tokens, dtype=torch.long)
    if recipe.stage == "rephraser":
        return model(input_ids=ids, labels=ids).loss
    vision = model.config.vision_config
    pixels = torch.zeros(batch, vision.num_frames, 3, vision.image_size, vision.image_size)
    if recipe.stage == "classifier":
        heads = len(model.config.num_classes)
        return model(pixels, torch.zeros(batch, heads, dtype=torch.long), recipe.label_smoothing).loss
    if recipe.stage == "narrator":
        logits = model(pixel_values=pixels, input_ids=ids, use_cache=False).logits[:, :-1]
        return lavila.caption_loss(logits.float(), ids[:, 1:]).loss
    found = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
    videos, texts = found.video_embeds.float(), found.text_embeds.float()
    if recipe.stage == "ranking":  # all comparisons, without picking those off the diagonal, which has no fixed size
        return lavila.max_margin_loss(videos @ texts.mT, recipe.margin, keep_diagonal=True)
    return lavila.contrastive_loss(videos, texts, model.logit_scale.float()).loss


def _lf_vila_step(model: Any, recipe: LfVilaRecipe, tokens: int) -> torch.Tensor:
    config, batch = model.config, recipe.batch_size
    height, width = config.video_config.image_size
    pixels = torch.zeros(batch, config.num_frames, 3, height, width)
    answers = torch.zeros(batch, dtype=torch.long)
    if recipe.stage == "classification":
        return model(pixels, answers).loss
    length = config.max_sentence_tokens
    shape = (batch, CHOICES) if recipe.stage == "multiple_choice" else (batch,)
    ids = torch.zeros(*shape, tokens // length, length, dtype=torch.long)
    mask = torch.ones_like(ids)
    if recipe.stage == "stage1":
        places = torch.zeros(batch, 2, dtype=torch.long)
        draw = losses.MtcDraw(places, places, places[:, 0])
        return model(pixels, ids, mask, draw=draw).loss
    if recipe.stage == "retrieval":
        return model(pixels, ids, mask).loss
    if recipe.stage == "question_answering":
        return model(pixels, ids, mask, answers).loss
    if recipe.stage == "multiple_choice":
        spans = torch.zeros(batch, config.num_frames, dtype=torch.long)
        return model(pixels, ids, mask, answers, spans, torch.ones(batch, config.num_frames)).loss
    # As the model's own second stage, but that hidden words are as many as there are on average, at fixed places.
    video = model.video_positions(model.encode_video(pixels).tokens).flatten(1, 2)
    sentences = model.text_encoder.read_sentences(ids, mask)
    paragraph, mask = model.text_encoder.read_paragraph(sentences, mask)
    states = model.text_encoder.read_with_video(paragraph, mask, video)
    hidden = states[:, 1 : 1 + round(recipe.masked_share * tokens)].flatten(0, 1)
    words = model.mlm_decoder(model.mlm_transform(hidden)).float()
    match = model.match_head(model.text_encoder.bert.pooler(states)).float()
    cross_entropy = torch.nn.functional.cross_entropy
    return cross_entropy(words, torch.zeros(len(words), dtype=torch.long)) + cross_entropy(match, answers)


def _forward_operations(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_operations(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_operations,
}


def plan(recipe: Recipe, config: Any, processes: int = 1) -> TrainingPlan:
    """Carry out a step without numbers.

    Args:
        recipe: of Video-LLaMA of stage 1 or 2, from a model's folder; or of another family.
        config: of that model.
        processes: GPUs; with DeepSpeed they share states of the optimiser, with ZeRO-3 weights, too. What they send
            each other, the embeddings of contrastive losses among it, is not counted.
    """
    learned = None
    if isinstance(recipe, VideoLlamaRecipe):
        tokens = sample_tokens(recipe, config)
        learned = recipe.max_caption_tokens if tokens < (recipe.max_tokens or math.inf) else None
    else:
        tokens = text_tokens(recipe, config)
    model = learner(recipe, config)
    weights = memory.weights_of(model)
    video_encoder.relative_positions.cache_clear()  # what it holds has numbers
    # Early stopping raises an error through the modes, and its traceback keeps tensors alive that a real run lets go.
    with FakeTensorMode(), set_checkpoint_early_stop(False):
        weights_bytes = place(model, recipe)
        learning = [value for value in model.parameters() if value.requires_grad]
        numbers = sum(value.numel() for value in learning)
        total = sum(value.numel() for value in model.parameters())
        if recipe.momentum is None:
            optimizer: Any = torch.optim.AdamW(learning, lr=recipe.learning_rate, foreach=False)
        else:
            optimizer = torch.optim.SGD(learning, recipe.learning_rate, recipe.momentum, foreach=False)
        alive = AliveBytes([*model.parameters(), *model.buffers()])
        operations = FlopCounterMode(display=False, custom_mapping=ATTENTION)
        with alive:
            for value in learning:
                value.grad = torch.zeros_like(value)
            optimizer.step()  # its states are there from the first step on
            if recipe.gradient_accumulation == 1:
                optimizer.zero_grad()
            with operations:
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                    loss = step(model, recipe, tokens, learned or tokens)
                loss.backward()
            optimizer.step()
    video_encoder.relative_positions.cache_clear()  # and now it has none
    peak = alive.peak
    if getattr(recipe, "bits", None):  # a weight is unpacked while it is used
        peak += max(math.prod(one.shape) for one in weights if one.quantised) * 2
    zero = 0
    if recipe.deepspeed:
        settings = json.loads((ROOT / recipe.deepspeed).read_text(encoding="utf-8"))
        zero = settings.get("zero_optimization", {}).get("stage", 0)
    share = 1 - 1 / processes
    if zero:  # states of the optimiser, and from stage 2 on gradients, are spread
        peak -= int((8 if zero == 1 else 12) * numbers * share)
    if zero == 3:
        weights_bytes -= int(weights_bytes * share)
    passes = recipe.gradient_accumulation
    if isinstance(recipe, LavilaRecipe) and recipe.piece_size:  # each piece forwards, forwards again, and backwards
        passes = 4 / 3 * math.ceil(recipe.batch_size / recipe.piece_size)
    return TrainingPlan(
        parameters=total, learning=numbers, weights_bytes=weights_bytes, step_bytes=peak, batch=recipe.batch_size,
        tokens=tokens, operations=float(operations.get_total_flops() * passes),
        half=recipe.bf16,
    )  # fmt: skip


def text_tokens(recipe: LavilaRecipe | LfVilaRecipe | Any, config: Any) -> int:
    """Tokens of the longest text of LaViLa, or of all sentences of LF-VILA."""
    if isinstance(recipe, LavilaRecipe):
        return {"narrator": 77, "rephraser": 128, "classifier": 0}.get(recipe.stage, 77)
    if recipe.stage == "classification":
        return 0
    asked = recipe.stage in ("question_answering", "multiple_choice")
    sentences = recipe.sentences or (config.max_sentences if asked else config.num_clips)
    return sentences * config.max_sentence_tokens


def shape_of(name: str | None, recipe: Recipe | None = None) -> Any:
    """A published size by name, or the shape of a model's folder; with what the recipe changes in it."""
    if isinstance(recipe, LfVilaRecipe):
        config = changed(LfVilaConfig(), recipe.shape)
        if recipe.stage in ("stage1", "retrieval"):
            config.text_config.num_hidden_layers = config.sentence_layers + config.paragraph_layers
        return config
    if isinstance(recipe, LavilaRecipe):
        if recipe.stage == "rephraser":
            from transformers import T5Config

            large: dict[str, Any] = {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16}
            large["decoder_start_token_id"] = 0
            return T5Config(**large)
        kinds: dict[str, Any] = {"narrator": LavilaNarratorConfig, "classifier": LavilaClassifierConfig}
        return changed(kinds.get(recipe.stage, LavilaDualEncoderConfig).preset(name or "base"), recipe.shape)
    name = name or "7b"
    return VideoLlamaConfig.preset(name) if name in ("7b", "13b") else hub.read_config(hub.find(name))


def lines(recipe: Recipe, found: TrainingPlan, processes: int, peak: float | None, share: float) -> list[str]:
    """A table."""
    seconds = found.seconds(peak, share)
    peak = peak or (A100_TFLOPS if found.half else A100_FP32_TFLOPS)
    samples = found.batch * recipe.gradient_accumulation * processes
    return [
        f"parameters              {found.parameters:>16,}",
        f"of these learn          {found.learning:>16,}",
        f"weights                 {found.weights_bytes / GIB:>12.1f} GiB",
        f"beside them in a step   {found.step_bytes / GIB:>12.1f} GiB   {found.batch} samples of {found.tokens} tokens",
        f"in all on each GPU      {found.bytes / GIB:>12.1f} GiB",
        f"operations of a step    {found.operations / 1e12:>12.1f} TFLOP on each GPU",
        f"a step                  {seconds:>12.2f} s     at {share:.0%} of {peak:g} TFLOP/s; {samples} samples on "
        f"{processes} GPU{'s' if processes > 1 else ''}: {samples / seconds:.0f} a second",
        f"the run                 {recipe.steps * seconds / 3600:>12.1f} h     {recipe.steps:,} steps",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--shape", help="7b, 13b, base, large, large_336px, or a folder of Video-LLaMA")
    parser.add_argument("--processes", type=int, default=1, help="GPUs")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the chip; default: of an A100, as the recipe computes")
    parser.add_argument("--share", type=float, default=SHARE, help="of the peak that is reached")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    args = parser.parse_args()
    for path in args.recipes:
        recipe = read_recipe(path, args.set)
        found = plan(recipe, shape_of(args.shape, recipe), args.processes)
        print(f"{path}, shape {args.shape or 'published'}, computed:")
        print("\n".join(lines(recipe, found, args.processes, args.peak, args.share)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
