"""What a run of LaViLa's models is made of: dual encoder, narrator, rephraser, classifier.

Source: Zhao et al., "LaViLa" (2022), section 4 and appendix; the released code for what learns and how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from videollm.data.clip_items import ClipFrames, CollateClips, GivenItems, MixtureItems
from videollm.data.datasets import open_mixture
from videollm.data.ledger import Ledger
from videollm.errors import ConfigError, ModelNotFoundError
from videollm.models.lavila import (
    LavilaClassifierConfig,
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaNarratorConfig,
    LavilaProcessor,
    Rephraser,
)
from videollm.models.lavila.losses import caption_loss, contrastive_loss, gather, max_margin_loss
from videollm.models.lavila.timesformer import resize_time_embedding
from videollm.training import processes
from videollm.training.order import Revisited
from videollm.training.pieces import Pieces, check_source, positions
from videollm.training.recipe import LavilaRecipe
from videollm.training.start import config_of, save_trained, start

NARRATOR_LEARNS = ("crossattention", "cross_attn", "alpha_cattn", "alpha_dense", "visual_pool.")
"""In the names of what a narrator learns: all that looks at the clip. ``mlp_crossattention`` and
``ln_2_crossattention`` have the first of them in their names, too, and learn, as published."""

MODELS: dict[str, tuple[Any, Any]] = {
    "dual_encoder": (LavilaDualEncoder, LavilaDualEncoderConfig),
    "ranking": (LavilaDualEncoder, LavilaDualEncoderConfig),
    "narrator": (LavilaNarrator, LavilaNarratorConfig),
    "classifier": (LavilaForVideoClassification, LavilaClassifierConfig),
    "rephraser": (T5ForConditionalGeneration, T5Config),
}


def pieces(recipe: LavilaRecipe, ledger: Ledger, given: Any = None) -> Pieces:
    """The pieces of a run.

    Args:
        recipe: of it.
        ledger: for samples that cannot be used.
        given: by number what `videollm.data.clip_items.ClipItems.made` takes, in place of the recipe's datasets;
            without a length it is taken position by position, in its own order.

    Raises:
        ConfigError: a recipe that cannot be run here.
        DataError: a dataset that cannot be read.
        ModelNotFoundError: no such model to start from.
    """
    if processes.zero_stage(recipe.deepspeed) == 3:
        raise ConfigError("LaViLa's models fit one GPU and are not spread; give zero2.json, or leave deepspeed out")
    check_source(recipe, given)
    model, processor = begin(recipe)
    freeze(model, recipe)
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    images = None
    if recipe.stage != "rephraser":
        images = processor if isinstance(processor, LavilaImageProcessor) else processor.image_processor
        images.num_frames = model.config.vision_config.num_frames
    learns = {"rephraser": "sentences", "classifier": "classes"}.get(recipe.stage, "texts")
    classes = tuple(model.config.num_classes) if recipe.stage == "classifier" else ()
    arguments = (learns, images, recipe.seed, positions(recipe))
    options = {"augment": recipe.augment, "flip": recipe.flip, "classes": classes}
    if given is not None:
        row = Revisited(given, recipe.seed) if hasattr(given, "__len__") else given
        mixture, data = None, GivenItems(row, *arguments, **options)
    else:
        mixture = open_mixture(recipe.datasets, recipe.seed, 1, ledger)
        frames = None
        if images is not None:
            frames = ClipFrames(images.num_frames, recipe.augment, recipe.kept_frames)
        data = MixtureItems(mixture, recipe.datasets, frames, *arguments, **options)
    return Pieces(
        model=model,
        objective=_objective(recipe, model),
        data=data,
        collate=CollateClips(None if recipe.stage == "classifier" else _Words(recipe, processor)),
        save_model=lambda folder: _save(recipe, folder),
        mixture=mixture,
        source="handed over",
    )


# ---- the model


def begin(recipe: LavilaRecipe, say: bool = True) -> tuple[Any, Any]:
    """The model that a run starts from, in float32, and its processor; ``say``: tell what begins with what.

    Raises:
        ConfigError, ModelNotFoundError: see `videollm.training.start`.
    """
    folders = (recipe.model, *recipe.start_from)
    if recipe.stage == "rephraser":
        return _rephraser(recipe, folders, say)
    kind, config_kind = MODELS[recipe.stage]
    config = config_of(recipe.model, config_kind, recipe.shape)
    model = kind(config)
    start(model, folders, lambda name: _begins(recipe.stage, name), _other_frames, say)
    processor: Any
    try:
        if recipe.stage == "classifier":
            processor = LavilaImageProcessor.from_pretrained(recipe.model, local_files_only=True)
        else:
            processor = LavilaProcessor.from_pretrained(recipe.model, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelNotFoundError(f"the model in {recipe.model} has no processor ({what}); save it there") from None
    return model, processor


def _begins(stage: str, name: str) -> bool:
    """Whether a parameter may begin at random where others do not: what the stage before did not have."""
    return _looks(name) if stage == "narrator" else stage == "classifier" and name.startswith("heads.")


def _looks(name: str) -> bool:
    return any(part in name for part in NARRATOR_LEARNS)


def _other_frames(name: str, value: torch.Tensor, place: torch.Tensor) -> torch.Tensor | None:
    """The table of times for another number of frames."""
    if name != "vision_model.time_embedding" or value.shape[2] != place.shape[2]:
        return None
    return resize_time_embedding(value.float(), place.shape[1])


def _rephraser(recipe: LavilaRecipe, folders: Sequence[str], say: bool) -> tuple[Any, Any]:
    config = config_of(recipe.model, T5Config, recipe.shape)
    model: Any = T5ForConditionalGeneration(config)
    start(model, folders, say=say)
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelNotFoundError(f"the model in {recipe.model} has no tokenizer ({what}); save it there") from None
    return model, tokenizer


def _save(recipe: LavilaRecipe, folder: Path) -> None:
    def fresh() -> tuple[Any, Any]:
        torch.manual_seed(recipe.seed)
        model, processor = begin(recipe, say=False)
        if recipe.stage == "rephraser":
            model.config.rephraser_prompt = Rephraser(model, processor).prompt
        elif recipe.stage == "classifier":
            processor.num_frames = model.config.vision_config.num_frames
        else:
            processor.image_processor.num_frames = model.config.vision_config.num_frames
        return model, processor

    save_trained(fresh, recipe.output, folder)


def freeze(model: Any, recipe: LavilaRecipe) -> None:
    """Let learn what the published runs let learn, and what the recipe adds.

    Raises:
        ConfigError: a part that the model does not have.
    """
    for part in recipe.also_learn:
        if not any(name.startswith(f"{part}.") for name, _ in model.named_parameters()):
            raise ConfigError(f"also_learn: the model has no part {part!r}; it has {_parts(model)}")
    for name, parameter in model.named_parameters():
        if recipe.stage == "narrator":
            also = name.startswith(tuple(f"{part}." for part in recipe.also_learn))
            parameter.requires_grad_(also or _looks(name))
        elif name == "log_logit_scale":
            parameter.requires_grad_(recipe.learn_temperature)


def _parts(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children())


# ---- words


class _Words:
    """Texts of a batch to the model's tensors."""

    def __init__(self, recipe: LavilaRecipe, processor: Any) -> None:
        self.processor, self.as_published, self.pairs = processor, recipe.as_published, recipe.stage == "rephraser"
        self.prompt = Rephraser(None, None).prompt

    def __call__(self, texts: Sequence[str], sentences: Sequence[str]) -> Mapping[str, torch.Tensor]:
        if not self.pairs:
            return self.processor.texts(texts, self.as_published)
        options = {"padding": True, "truncation": True, "max_length": 128, "return_tensors": "pt"}
        asked = self.processor([self.prompt.format(sentence=sentence) for sentence in sentences], **options)
        said = self.processor(list(texts), **options)
        labels = said["input_ids"].masked_fill(said["attention_mask"] == 0, -100)
        return {"input_ids": asked["input_ids"], "attention_mask": asked["attention_mask"], "labels": labels}


# ---- what is minimised


def _objective(recipe: LavilaRecipe, model: Any) -> nn.Module:
    if recipe.stage == "dual_encoder":
        return ContrastiveObjective(model, recipe.pseudo_temperature, recipe.piece_size)
    if recipe.stage == "ranking":
        return RankingObjective(model, recipe.margin)
    if recipe.stage == "classifier":
        return ClassifierObjective(model, recipe.label_smoothing, recipe.backbone_rate)
    if recipe.stage == "narrator":
        return NarratorObjective(model, recipe.as_published)
    return RephraserObjective(model)


class _LavilaObjective(nn.Module):
    """Holds a model; as published, what has fewer than two dimensions, and biases, do not decay."""

    accepts_loss_kwargs = False

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.metrics: dict[str, torch.Tensor] = {}

    @staticmethod
    def decays(name: str, parameter: torch.Tensor) -> bool:
        """Whether weight decay is for a parameter."""
        return parameter.ndim >= 2 and "bias" not in name


class ContrastiveObjective(_LavilaObjective):
    """Clips and texts into one space: each clip against all texts of all processes, and the other way round.

    Args:
        model: a dual encoder.
        pseudo_temperature: of pairs with a model's words; None: as of the others.
        piece_size: so many pairs are embedded at once, see `videollm.training.trainer.StageTrainer`; None: all.
    """

    def __init__(self, model: LavilaDualEncoder, pseudo_temperature: float | None = None,
                 piece_size: int | None = None) -> None:  # fmt: skip
        super().__init__(model)
        self.pseudo_logit_scale = None if pseudo_temperature is None else 1 / pseudo_temperature
        self.piece_size = piece_size

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        is_human: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        embed_only: bool = False,
    ) -> dict[str, torch.Tensor]:
        """A batch of `videollm.data.clip_items.CollateClips`; ``embed_only``: no loss, but unit vectors ``(B, D)``."""
        found = self.model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        if embed_only:
            return {"video_embeds": found.video_embeds, "text_embeds": found.text_embeds}
        return {"loss": self.contrast(found.video_embeds, found.text_embeds, is_human).loss}

    def contrast(self, videos: torch.Tensor, texts: torch.Tensor, is_human: torch.Tensor | None) -> Any:
        """The loss of unit vectors of this process's pairs; how often the right text came first goes to ``metrics``."""
        found = contrastive_loss(
            videos.float(), texts.float(), self.model.logit_scale.float(), is_human=is_human,
            pseudo_logit_scale=self.pseudo_logit_scale,
        )  # fmt: skip
        self.metrics["nearest_right"] = found.accuracy.detach()
        return found


class RankingObjective(_LavilaObjective):
    """Other texts of all processes are to be less similar to a clip than its own, by a margin, and other clips to a
    text."""

    def __init__(self, model: LavilaDualEncoder, margin: float) -> None:
        super().__init__(model)
        self.margin = margin

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor,
                attention_mask: torch.Tensor | None = None, **_: Any) -> dict[str, torch.Tensor]:  # fmt: skip
        found = self.model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        similarity = gather(found.video_embeds.float()) @ gather(found.text_embeds.float()).mT
        with torch.no_grad():
            own = torch.arange(len(similarity), device=similarity.device)
            self.metrics["nearest_right"] = (similarity.argmax(1) == own).float().mean()
        return {"loss": max_margin_loss(similarity, self.margin)}


class NarratorObjective(_LavilaObjective):
    """Captions of clips, token by token.

    Every token of a step weighs the same, in whatever process it is; as published, longer captions weigh less the more
    padding their batch has.
    """

    loss_type = "ForCausalLM"  # the library counts target tokens as this loss does: no first token is one

    def __init__(self, model: LavilaNarrator, as_published: bool = False) -> None:
        super().__init__(model)
        self.as_published, self.accepts_loss_kwargs = as_published, not as_published

    def train(self, mode: bool = True) -> NarratorObjective:
        """What is frozen for good, the clip's encoder, stays in evaluation."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.model.vision_model.parameters()):
            self.model.vision_model.eval()
        return self

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor,
                num_items_in_batch: torch.Tensor | None = None, **_: Any) -> dict[str, torch.Tensor]:  # fmt: skip
        """A batch of `videollm.data.clip_items.CollateClips`; ``num_items_in_batch``: target tokens of the step."""
        logits = self.model(pixel_values=pixel_values, input_ids=input_ids, use_cache=False).logits[:, :-1]
        found = caption_loss(
            logits.float(), labels[:, 1:], ignore_index=0 if self.as_published else -100,
            as_published=self.as_published,
        )  # fmt: skip
        self.metrics["token_right"], self.metrics["perplexity"] = found.accuracy, found.perplexity
        if num_items_in_batch is None:
            return {"loss": found.loss}
        return {"loss": found.token_losses.sum() / num_items_in_batch}


class RephraserObjective(_LavilaObjective):
    """Sentences in other words, by the library's T5; every token of a step weighs the same."""

    accepts_loss_kwargs = True
    loss_type = "ForSeq2Seq"  # no target is shifted away

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor,
                num_items_in_batch: torch.Tensor | None = None, **_: Any) -> dict[str, torch.Tensor]:  # fmt: skip
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).logits.float()
        learned = labels != -100
        total = functional.cross_entropy(logits[learned], labels[learned], reduction="sum")
        with torch.no_grad():
            self.metrics["token_right"] = (logits.argmax(-1) == labels)[learned].float().mean()
        return {"loss": total / (learned.sum() if num_items_in_batch is None else num_items_in_batch)}


class ClassifierObjective(_LavilaObjective):
    """Classes of clips: the sum of the heads' cross-entropies.

    Args:
        model: with its heads.
        label_smoothing: of the targets.
        backbone_rate: what encodes the clip learns so many times as fast as the heads.
    """

    def __init__(self, model: LavilaForVideoClassification, label_smoothing: float, backbone_rate: float) -> None:
        super().__init__(model)
        self.label_smoothing, self.backbone_rate = label_smoothing, backbone_rate

    def rate(self, name: str) -> float:
        """How fast a parameter learns, times the learning rate."""
        return 1.0 if name.startswith("model.heads.") else self.backbone_rate

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        found = self.model(pixel_values, labels, self.label_smoothing)
        with torch.no_grad():
            right = [logits.argmax(-1) == labels[:, head] for head, logits in enumerate(found.logits)]
            self.metrics["right"] = torch.stack(right).all(0).float().mean()
        return {"loss": found.loss}
