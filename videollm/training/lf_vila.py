"""What a run of LF-VILA is made of: both stages of pretraining, and what it is fine-tuned for.

Source: Sun et al. 2022, sections 3 and 4; the released code for what learns and how.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from videollm.data.datasets import open_mixture
from videollm.data.ledger import Ledger
from videollm.data.long_items import CollateLong, GivenLongItems, MixtureLongItems
from videollm.errors import ConfigError, ModelNotFoundError
from videollm.models.lf_vila import (
    LfVilaConfig,
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
    LfVilaImageProcessor,
    LfVilaProcessor,
)
from videollm.models.lf_vila.losses import draw_mtc
from videollm.training import processes
from videollm.training.order import Revisited
from videollm.training.pieces import Pieces, check_source, positions
from videollm.training.recipe import LfVilaRecipe
from videollm.training.start import config_of, save_trained, start

MODELS: dict[str, Any] = {
    "stage1": LfVilaForPreTraining,
    "stage2": LfVilaForPreTraining,
    "retrieval": LfVilaForRetrieval,
    "question_answering": LfVilaForQuestionAnswering,
    "multiple_choice": LfVilaForMultipleChoice,
    "classification": LfVilaForVideoClassification,
}
# What may begin at random where the rest does not: what a stage brings that no stage before it had.
_MAY_BEGIN = {
    "stage2": ("video_positions.", "match_head."),
    "question_answering": ("classifier.",),
    "multiple_choice": ("classifier.", "span_classifier."),
    "classification": ("classifier.", "video_frame_projection."),
}
# What takes no part in a stage's loss.
_UNUSED = {
    "stage1": ("mlm_", "match_head.", "text_encoder.bert.pooler."),
    "classification": ("video_frame_projection.",),
}
_LOCAL = ("video_encoder.local_",)


def pieces(recipe: LfVilaRecipe, ledger: Ledger, given: Any = None) -> Pieces:
    """The pieces of a run.

    Args:
        recipe: of it.
        ledger: for samples that cannot be used.
        given: by number what `videollm.data.long_items.LongItems.made` takes, in place of the recipe's datasets;
            without a length it is taken position by position, in its own order.

    Raises:
        ConfigError: a recipe that cannot be run here.
        DataError: a dataset that cannot be read.
        ModelNotFoundError: no such model to start from.
    """
    if processes.zero_stage(recipe.deepspeed) == 3:
        raise ConfigError("LF-VILA fits one GPU and is not spread; give zero2.json, or leave deepspeed out")
    check_source(recipe, given)
    model, processor = begin(recipe)
    freeze(model, recipe)
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    config = model.config
    words = isinstance(processor, LfVilaProcessor)
    images = processor.image_processor if words else processor
    arguments = (recipe.stage, images, config.num_frames, config.num_clips, recipe.seed, positions(recipe))
    options: dict[str, Any] = {"augment": recipe.augment}
    if recipe.stage in ("question_answering", "classification"):
        options["answers"] = config.num_answers
    if given is not None:
        mixture = None
        row = Revisited(given, recipe.seed) if hasattr(given, "__len__") else given
        data: Any = GivenLongItems(row, *arguments, **options)
    else:
        mixture = open_mixture(recipe.datasets, recipe.seed, 1, ledger)
        data = MixtureLongItems(mixture, *arguments, **options)
    collate = CollateLong(
        processor,
        recipe.sentences or _sentences(recipe, config, processor),
        whole=config.as_published,
        masked_share=recipe.masked_share if recipe.stage == "stage2" else 0.0,
        seed=recipe.seed,
    )
    return Pieces(
        model=model,
        objective=LongObjective(model, recipe.stage, recipe.seed),
        data=data,
        collate=collate,
        save_model=lambda folder: _save(recipe, folder),
        mixture=mixture,
        source="handed over",
    )


def _sentences(recipe: LfVilaRecipe, config: LfVilaConfig, processor: Any) -> int:
    """Of a paragraph; of a question, its choice and what is said, as many as the model reads at once."""
    if recipe.stage == "classification":
        return 1
    asked = recipe.stage in ("question_answering", "multiple_choice")
    return config.most_sentences if asked else processor.max_sentences


# ---- the model


def begin(recipe: LfVilaRecipe, say: bool = True) -> tuple[Any, Any]:
    """The model that a run starts from, in float32, and its processor; ``say``: tell what begins with what.

    Raises:
        ConfigError, ModelNotFoundError: see `videollm.training.start`.
    """
    kind = MODELS[recipe.stage]
    config = config_of(recipe.model, LfVilaConfig, recipe.shape)
    if recipe.stage == "stage2" and not config.cross_layers:
        raise ConfigError(
            f"the model in {recipe.model} has no layers that read words and video together; give one of the second "
            "stage, or more of them: shape: {text_config: {num_hidden_layers: 24}}"
        )
    if recipe.stage in ("retrieval", "stage1") and config.cross_layers:
        # What reads words and video together takes no part, and these models have no such layers.
        config.text_config.num_hidden_layers = config.sentence_layers + config.paragraph_layers
    try:
        model = kind(config)
    except ValueError as error:
        raise ConfigError(f"the shape of the model in {recipe.model} cannot be used: {error}") from None
    allowed = _MAY_BEGIN.get(recipe.stage, ())
    start(model, (recipe.model, *recipe.start_from), lambda name: name.startswith(allowed), say=say)
    processor: Any
    try:
        if recipe.stage == "classification":
            processor = LfVilaImageProcessor.from_pretrained(recipe.model, local_files_only=True)
        else:
            processor = LfVilaProcessor.from_pretrained(recipe.model, local_files_only=True)
            processor.max_sentence_tokens = config.max_sentence_tokens
            processor.num_frames = config.num_frames
    except (OSError, ValueError, TypeError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise ModelNotFoundError(f"the model in {recipe.model} has no processor ({what}); save it there") from None
    return model, processor


def _save(recipe: LfVilaRecipe, folder: Path) -> None:
    def fresh() -> tuple[Any, Any]:
        torch.manual_seed(recipe.seed)
        return begin(recipe, say=False)

    save_trained(fresh, recipe.output, folder)


def freeze(model: Any, recipe: LfVilaRecipe) -> None:
    """Let learn what the stage lets learn, and nothing that its loss does not depend on."""
    if recipe.stage == "stage2":
        model.freeze_first_stage()
    local = () if recipe.stage == "stage1" and model.config.local_features == "tap" else _LOCAL
    unused = (*_UNUSED.get(recipe.stage, ()), *local)
    if not recipe.learn_pooler:
        unused = (*unused, "text_encoder.bert.pooler.")
    for name, parameter in model.named_parameters():
        if name.startswith(unused):
            parameter.requires_grad_(False)


# ---- what is minimised


class LongObjective(nn.Module):
    """The loss of a stage, as the stage's model has it.

    Args:
        model: of the stage.
        stage: of `videollm.training.recipe.LfVilaRecipe`.
        seed: of the positions that the loss which orders moments (MTC) looks at; the same in all processes.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: Any, stage: str, seed: int) -> None:
        super().__init__()
        self.model, self.stage, self.seed = model, stage, seed
        self.metrics: dict[str, torch.Tensor] = {}

    @staticmethod
    def decays(name: str, parameter: torch.Tensor) -> bool:
        """Whether weight decay is for a parameter: as published not for biases, BERT's norms and video positions."""
        plain = ("bias", "LayerNorm.weight", "video_positions.space", "video_positions.time")
        return not any(part in name for part in plain)

    def forward(self, position: torch.Tensor, source: torch.Tensor | None = None,
                **batch: torch.Tensor) -> dict[str, torch.Tensor]:  # fmt: skip
        """A batch of `videollm.data.long_items.CollateLong`."""
        options = {}
        if self.stage == "stage1":
            config, rows = self.model.config, len(position)
            first = int(position[0]) - rows * processes.rank()
            options["draw"] = draw_mtc(
                rows * processes.count(), batch["input_ids"].shape[1], config.mtc_anchors, config.mtc_candidates,
                torch.Generator().manual_seed(self.seed * 1_000_003 + first),
            )  # fmt: skip
        found = self.model(**batch, **options)
        for name in ("global_loss", "mtc_loss", "mlm_loss", "vtm_loss", "answer_loss", "span_loss"):
            value = getattr(found, name, None)
            if value is not None:
                self.metrics[name] = value.detach()
        with torch.no_grad():
            if self.stage in ("question_answering", "multiple_choice", "classification"):
                self.metrics["right"] = (found.logits.argmax(-1) == batch["labels"]).float().mean()
            elif self.stage == "stage2":
                self.metrics["match_right"] = (found.vtm_logits.argmax(-1) == found.vtm_labels).float().mean()
            else:
                similarity = found.video_embeds @ found.text_embeds.mT
                own = torch.arange(len(similarity), device=similarity.device)
                self.metrics["nearest_right"] = (similarity.argmax(1) == own).float().mean()
        return {"loss": found.loss}
