"""LaViLa, known to the library's Auto classes."""

from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.modeling_auto import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForVideoClassification,
)
from transformers.models.auto.processing_auto import AutoProcessor

from .configuration_lavila import (
    LavilaClassifierConfig,
    LavilaDualEncoderConfig,
    LavilaNarratorConfig,
    LavilaVisionConfig,
)
from .diverse_beams import diverse_beam_search
from .dual_encoder import LavilaDualEncoder, LavilaForVideoClassification
from .narrator import EntropyMeter, LavilaNarrator
from .processing_lavila import LavilaImageProcessor, LavilaProcessor
from .rephraser import Rephraser
from .timesformer import LavilaVisionModel

for _config, _auto, _model in (
    (LavilaVisionConfig, AutoModel, LavilaVisionModel),
    (LavilaDualEncoderConfig, AutoModel, LavilaDualEncoder),
    (LavilaNarratorConfig, AutoModelForImageTextToText, LavilaNarrator),
    (LavilaClassifierConfig, AutoModelForVideoClassification, LavilaForVideoClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    _auto.register(_config, _model, exist_ok=True)
    AutoImageProcessor.register(_config, LavilaImageProcessor, exist_ok=True)
    if _model in (LavilaDualEncoder, LavilaNarrator):
        AutoProcessor.register(_config, LavilaProcessor, exist_ok=True)

__all__ = [
    "EntropyMeter",
    "LavilaClassifierConfig",
    "LavilaDualEncoder",
    "LavilaDualEncoderConfig",
    "LavilaForVideoClassification",
    "LavilaImageProcessor",
    "LavilaNarrator",
    "LavilaNarratorConfig",
    "LavilaProcessor",
    "LavilaVisionConfig",
    "LavilaVisionModel",
    "Rephraser",
    "diverse_beam_search",
]
