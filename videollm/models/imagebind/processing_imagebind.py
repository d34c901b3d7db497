"""Sound and words as ImageBind's trunks take them.

Notation: S segments, F mel bins, W fbank frames, L text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from ...clips import Waveform
from ..lavila.processing_lavila import repair
from ..own_parts import OwnPartsProcessor
from ..video_llama.feature_extraction_video_llama import VideoLlamaFeatureExtractor
from .text_tokenizer import tokenise


class ImageBindProcessor(OwnPartsProcessor):
    """Mel images of stretches of sound, and CLIP's tokens of texts.

    Attributes:
        max_text_tokens: longest text, start and end token included.
    """

    own_parts: ClassVar[dict[str, type]] = {"feature_extractor": VideoLlamaFeatureExtractor}

    def __init__(
        self, feature_extractor: VideoLlamaFeatureExtractor, tokenizer: Any, max_text_tokens: int = 77, **kwargs: Any
    ) -> None:
        super().__init__(feature_extractor, tokenizer)
        self.max_text_tokens = max_text_tokens

    def sounds(
        self, waveforms: Sequence[Waveform], windows_seconds: Sequence[tuple[float, float]]
    ) -> dict[str, torch.Tensor]:
        """Stretches of one sound, each at most as long as a segment of the feature extractor.

        Returns:
            ``audio_values``: float32 ``(S, 1, F, W)``.
        """
        return {"audio_values": self.feature_extractor(waveforms, windows_seconds)}

    def texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Texts for the text trunk; too long ones lose words before their end token.

        Returns:
            ``input_ids``: int64 ``(B, L)``, padded on the right.
        """
        words = [repair(text).strip() for text in texts]
        return {"input_ids": tokenise(self.tokenizer, words, self.max_text_tokens)}
