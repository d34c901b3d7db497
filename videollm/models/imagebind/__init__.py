"""ImageBind: one embedding space for sound, sight and words. Known to the library's Auto classes."""

from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModel

from .configuration_imagebind import (
    ImageBindAudioConfig,
    ImageBindConfig,
    ImageBindTextConfig,
    ImageBindVisionConfig,
)
from .modeling_imagebind import ImageBindAudioModel, ImageBindModel, ImageBindTextModel, ImageBindVisionModel
from .text_tokenizer import load_text_tokenizer, tokenise

AutoConfig.register(ImageBindConfig.model_type, ImageBindConfig, exist_ok=True)
AutoModel.register(ImageBindConfig, ImageBindModel, exist_ok=True)

__all__ = [
    "ImageBindAudioConfig",
    "ImageBindAudioModel",
    "ImageBindConfig",
    "ImageBindModel",
    "ImageBindTextConfig",
    "ImageBindTextModel",
    "ImageBindVisionConfig",
    "ImageBindVisionModel",
    "load_text_tokenizer",
    "tokenise",
]
