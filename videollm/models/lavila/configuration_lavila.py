"""Shapes of the LaViLa models: space-time encoder, dual encoder, narrator, classifier.

Source: Zhao et al., "Learning Video Representations from Large Language Models" (2022), section 4 and appendix, and the
released checkpoints; the defaults are the published base models.
"""

from typing import Any, ClassVar, Self

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

_LARGE = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "patch_size": 14,
}  # fmt: skip
VISION_SIZES: dict[str, dict[str, Any]] = {"base": {}, "large": _LARGE, "large_336px": {**_LARGE, "image_size": 336}}
"""The published encoders: CLIP's ViT-B/16, ViT-L/14 and ViT-L/14 at 336 pixels, along time, too."""


@strict
class LavilaVisionConfig(PreTrainedConfig):
    """Shape of the space-time encoder.

    Attributes:
        num_frames: T, rows of the table of times; a clip may have fewer frames.
        patch_bias, pre_layernorm, hidden_act: no, yes and ``"quick_gelu"`` in the models that began with CLIP; yes, no
            and ``"gelu"`` in EgoVLP's.
        gated_time_attention: a learned gate before what attention along time gives; no published model has one.
        layer_norm_eps: of the norms in the blocks and of the last.
        pre_layer_norm_eps: of the norm before the blocks, which differs.
        drop_path_rate: share of residual branches dropped in the last block in training, growing linearly from 0.
    """

    model_type = "lavila_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 16
    num_frames: int = 4
    hidden_act: str = "quick_gelu"
    patch_bias: bool = False
    pre_layernorm: bool = True
    gated_time_attention: bool = False
    layer_norm_eps: float = 1e-6
    pre_layer_norm_eps: float = 1e-5
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        """Part of the strict validation.

        Raises:
            ValueError: for a width that heads do not divide, or a picture that patches do not tile.
        """
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, found {self.hidden_size} and "
                f"{self.num_attention_heads}; change one of them"
            )
        if self.image_size % self.patch_size or self.num_frames < 1:
            raise ValueError(
                f"image_size must be a multiple of patch_size and num_frames at least 1, found {self.image_size}, "
                f"{self.patch_size} and {self.num_frames}; change one of them"
            )

    @property
    def patches_per_frame(self) -> int:
        """N, patches of one frame."""
        return (self.image_size // self.patch_size) ** 2


@strict
class LavilaDualEncoderConfig(PreTrainedConfig):
    """Shape of the dual encoder: clips and texts in one space.

    Attributes:
        text_config: of CLIP's text transformer or of DistilBERT.
        projection_dim: width of the shared space.
        nonlinear_projection: as in EgoVLP: both projections have a bias, and that of texts reads what a ReLU left.
        initial_temperature: what the learned temperature of the contrastive loss begins with.
        max_logit_scale: its inverse is kept below.
    """

    model_type = "lavila_dual_encoder"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": LavilaVisionConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_text_model"),
    }

    vision_config: Any = None
    text_config: Any = None
    projection_dim: int = 256
    nonlinear_projection: bool = False
    initial_temperature: float = 0.07
    max_logit_scale: float | int = 100.0
    initializer_range: float = 0.02

    @classmethod
    def preset(cls, size: str) -> Self:
        """A published model: base, large, or large_336px, whose texts DistilBERT reads."""
        texts: dict[str, dict[str, Any]] = {
            "base": {"model_type": "clip_text_model"},
            "large": {
                "model_type": "clip_text_model", "hidden_size": 768, "intermediate_size": 3072,
                "num_attention_heads": 12,
            },
            "large_336px": {"model_type": "distilbert"},
        }  # fmt: skip
        return cls(vision_config=VISION_SIZES[size], text_config=texts[size])


@strict
class LavilaNarratorConfig(PreTrainedConfig):
    """Shape of the narrator: a space-time encoder whose tokens a GPT-2 looks at.

    Attributes:
        text_config: of GPT-2.
        num_query_tokens: Q, visual tokens that the decoder looks at, whatever the clip's size.
        pool_num_heads, pool_head_dim: of the attention that makes them; None: the decoder's heads.
        cross_attention_frequency: every so many layers, from the first, looks at them.
        gated_cross_attention: what it sees enters through gates that begin shut.
        max_text_tokens: longest caption, begin and end included.
    """

    model_type = "lavila_narrator"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": LavilaVisionConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="gpt2"),
    }

    vision_config: Any = None
    text_config: Any = None
    num_query_tokens: int = 256
    pool_num_heads: int | None = None
    pool_head_dim: int = 64
    cross_attention_frequency: int = 1
    gated_cross_attention: bool = True
    max_text_tokens: int = 77
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    @classmethod
    def preset(cls, size: str) -> Self:
        """A published model: base with GPT-2; large and large_336px with GPT-2 XL, which looks less often."""
        largest = {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25}
        text = {"model_type": "gpt2"} if size == "base" else largest
        often = {"base": 1, "large": 2, "large_336px": 3}[size]
        return cls(vision_config=VISION_SIZES[size], text_config=text, cross_attention_frequency=often)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.pool_num_heads is None:
            self.pool_num_heads = self.text_config.num_attention_heads
        # A caption begins and ends with the same token. A row that has ended is filled up with it, too: the published
        # pad, 0, is an exclamation mark.
        self.bos_token_id = self.text_config.bos_token_id
        self.eos_token_id = self.text_config.eos_token_id
        self.pad_token_id = self.text_config.eos_token_id
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        if self.cross_attention_frequency < 1 or self.max_text_tokens < 2:
            raise ValueError(
                f"cross_attention_frequency must be at least 1 and max_text_tokens at least 2, found "
                f"{self.cross_attention_frequency} and {self.max_text_tokens}; change one of them"
            )
        if self.max_text_tokens > self.text_config.max_position_embeddings:
            raise ValueError(
                f"max_text_tokens is {self.max_text_tokens}, the decoder has "
                f"{self.text_config.max_position_embeddings} positions; make it smaller"
            )


@strict
class LavilaClassifierConfig(PreTrainedConfig):
    """Shape of a classifier of clips.

    Attributes:
        num_classes: of each head: one for actions, or, as published for EPIC-Kitchens, verbs, nouns and actions.
        classifier_dropout: before the heads, in training.
        head_initializer_range: std of the heads' weights.
    """

    model_type = "lavila_classifier"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"vision_config": LavilaVisionConfig}

    vision_config: Any = None
    num_classes: list[int] | tuple[int, ...] = (97, 300, 3806)
    classifier_dropout: float | int = 0.5
    head_initializer_range: float = 0.01
    initializer_range: float = 0.02

    @classmethod
    def preset(cls, size: str) -> Self:
        """A published model for EPIC-Kitchens: base or large."""
        return cls(vision_config=VISION_SIZES[size])
