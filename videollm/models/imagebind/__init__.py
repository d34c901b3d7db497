"""ImageBind: one embedding space for sound, sight and words."""

from .configuration_imagebind import (
    ImageBindAudioConfig,
    ImageBindConfig,
    ImageBindTextConfig,
    ImageBindVisionConfig,
)
from .modeling_imagebind import ImageBindAudioModel, ImageBindModel, ImageBindTextModel, ImageBindVisionModel
from .text_tokenizer import load_text_tokenizer, tokenise

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
