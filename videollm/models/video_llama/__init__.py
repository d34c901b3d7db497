"""Video-LLaMA, known to the library's Auto classes."""

from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.processing_auto import AutoProcessor

from .configuration_video_llama import VideoLlamaConfig
from .feature_extraction_video_llama import VideoLlamaFeatureExtractor
from .image_processing_video_llama import VideoLlamaImageProcessor
from .modeling_video_llama import VideoLlamaForConditionalGeneration
from .processing_video_llama import MediaSpan, RenderedPrompt, TrainingPrompt, VideoLlamaProcessor

AutoConfig.register(VideoLlamaConfig.model_type, VideoLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(VideoLlamaConfig, VideoLlamaForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(VideoLlamaConfig, VideoLlamaForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(VideoLlamaConfig, VideoLlamaImageProcessor, exist_ok=True)
AutoFeatureExtractor.register(VideoLlamaConfig, VideoLlamaFeatureExtractor, exist_ok=True)
AutoProcessor.register(VideoLlamaConfig, VideoLlamaProcessor, exist_ok=True)

__all__ = [
    "MediaSpan",
    "RenderedPrompt",
    "TrainingPrompt",
    "VideoLlamaConfig",
    "VideoLlamaFeatureExtractor",
    "VideoLlamaForConditionalGeneration",
    "VideoLlamaImageProcessor",
    "VideoLlamaProcessor",
]
