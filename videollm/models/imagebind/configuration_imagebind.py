"""Shapes of the ImageBind encoders: sound, sight and words in one embedding space.

Source: Girdhar et al., "ImageBind: One Embedding Space To Bind Them All" (2023), section 4 and appendix; the defaults
are the published "huge" model.
"""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec


@strict
class ImageBindAudioConfig(PreTrainedConfig):
    """Shape of the audio trunk: a pre-norm transformer over patches of a mel image.

    Attributes:
        hidden_size: width D of the trunk.
        num_mel_bins: F, height of the mel image.
        target_length: W, its width in fbank frames (10 ms each).
        patch_size: (bins, frames) of a patch.
        patch_stride: (bins, frames) between patches; smaller than ``patch_size`` means overlapping patches.
        projection_dim: width of the shared embedding space.
        drop_path_rate: share of residual branches dropped in the last block in training, growing linearly from 0.
        add_bias_kv: one learned extra key and value in every attention.
        logit_scale: the unit embedding is multiplied by this.
    """

    model_type = "imagebind_audio_model"
    base_config_key = "audio_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_mel_bins: int = 128
    target_length: int = 204
    patch_size: list[int] | tuple[int, ...] = (16, 16)
    patch_stride: list[int] | tuple[int, ...] = (10, 10)
    projection_dim: int = 1024
    drop_path_rate: float | int = 0.1
    add_bias_kv: bool = True
    layer_norm_eps: float = 1e-6
    stem_layer_norm_eps: float = 1e-5
    logit_scale: float | int = 20.0
    initializer_range: float = 0.02

    @property
    def grid(self) -> tuple[int, int]:
        """How many patches there are along the mel bins and along time."""
        return (
            (self.num_mel_bins - self.patch_size[0]) // self.patch_stride[0] + 1,
            (self.target_length - self.patch_size[1]) // self.patch_stride[1] + 1,
        )


@strict
class ImageBindVisionConfig(PreTrainedConfig):
    """Shape of the vision trunk: a pre-norm transformer over space-time patches of a picture shown twice.

    Attributes:
        num_frames: time steps of one patch; a still picture is repeated that often.
        projection_dim: width of the shared embedding space.
    """

    model_type = "imagebind_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    num_frames: int = 2
    projection_dim: int = 1024
    drop_path_rate: float | int = 0.0
    add_bias_kv: bool = False
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02


@strict
class ImageBindTextConfig(PreTrainedConfig):
    """Shape of the text trunk: a pre-norm causal transformer over CLIP's tokens, read at the end token.

    Attributes:
        max_position_embeddings: longest text, start and end token included.
        projection_dim: width of the shared embedding space.
        initial_logit_scale: what the learned scale of the unit embedding begins with.
        max_logit_scale: the learned scale is cut there.
        eos_token_id: the token whose state becomes the embedding; what stands behind it is padding.
    """

    model_type = "imagebind_text_model"
    base_config_key = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 77
    projection_dim: int = 1024
    drop_path_rate: float | int = 0.0
    add_bias_kv: bool = False
    layer_norm_eps: float = 1e-6
    initial_logit_scale: float | int = 1 / 0.07
    max_logit_scale: float | int = 100.0
    initializer_range: float = 0.02
    bos_token_id: int | None = 49406
    eos_token_id: int | list[int] | None = 49407
    pad_token_id: int | None = 0


@strict
class ImageBindConfig(PreTrainedConfig):
    """The trunks that are present; any of them may be None."""

    model_type = "imagebind"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "audio_config": SubConfigSpec(config_class=ImageBindAudioConfig, optional=True),
        "vision_config": SubConfigSpec(config_class=ImageBindVisionConfig, optional=True),
        "text_config": SubConfigSpec(config_class=ImageBindTextConfig, optional=True),
    }

    audio_config: Any = None
    vision_config: Any = None
    text_config: Any = None
    initializer_range: float = 0.02
