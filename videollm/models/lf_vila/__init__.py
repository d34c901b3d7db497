"""LF-VILA, known to the library's Auto classes."""

from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.modeling_auto import (
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
)
from transformers.models.auto.processing_auto import AutoProcessor

from .alignment import align, align_seconds
from .configuration_lf_vila import LfVilaConfig, LfVilaVideoConfig
from .embedding import ParagraphEmbedding, VideoEmbedding, embed_paragraph, embed_video
from .modeling_lf_vila import (
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
)
from .processing_lf_vila import LfVilaImageProcessor, LfVilaProcessor
from .video_encoder import LfVilaVideoEncoder

AutoConfig.register(LfVilaConfig.model_type, LfVilaConfig, exist_ok=True)
AutoConfig.register(LfVilaVideoConfig.model_type, LfVilaVideoConfig, exist_ok=True)
AutoModel.register(LfVilaVideoConfig, LfVilaVideoEncoder, exist_ok=True)
AutoModelForPreTraining.register(LfVilaConfig, LfVilaForPreTraining, exist_ok=True)
AutoModelForMultipleChoice.register(LfVilaConfig, LfVilaForMultipleChoice, exist_ok=True)
AutoModelForVideoClassification.register(LfVilaConfig, LfVilaForVideoClassification, exist_ok=True)
AutoImageProcessor.register(LfVilaConfig, LfVilaImageProcessor, exist_ok=True)
AutoProcessor.register(LfVilaConfig, LfVilaProcessor, exist_ok=True)

__all__ = [
    "LfVilaConfig",
    "LfVilaForMultipleChoice",
    "LfVilaForPreTraining",
    "LfVilaForQuestionAnswering",
    "LfVilaForRetrieval",
    "LfVilaForVideoClassification",
    "LfVilaImageProcessor",
    "LfVilaProcessor",
    "LfVilaVideoConfig",
    "LfVilaVideoEncoder",
    "ParagraphEmbedding",
    "VideoEmbedding",
    "align",
    "align_seconds",
    "embed_paragraph",
    "embed_video",
]
