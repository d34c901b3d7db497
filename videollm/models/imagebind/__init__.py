"""ImageBind: one embedding space for sound and sight."""

from .configuration_imagebind import ImageBindAudioConfig, ImageBindConfig, ImageBindVisionConfig
from .modeling_imagebind import ImageBindAudioModel, ImageBindModel, ImageBindVisionModel

__all__ = [
    "ImageBindAudioConfig",
    "ImageBindAudioModel",
    "ImageBindConfig",
    "ImageBindModel",
    "ImageBindVisionConfig",
    "ImageBindVisionModel",
]
