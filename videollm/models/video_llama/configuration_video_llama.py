"""The shape of a Video-LLaMA model: frozen encoders, three Q-Formers, two projections, a decoder.

Source: Zhang et al., "Video-LLaMA: An Instruction-tuned Audio-Visual Language Model for Video Understanding" (2023),
section 2.
"""

from typing import Any, ClassVar, Self

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig, Blip2VisionConfig

from ..imagebind.configuration_imagebind import ImageBindAudioConfig

_DECODERS = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


@strict
class VideoLlamaConfig(PreTrainedConfig):
    """Shape of `VideoLlamaForConditionalGeneration`.

    Attributes:
        vision_config: the EVA ViT that sees one frame at a time.
        qformer_config: the Q-Former that reads one frame's patches.
        video_qformer_config: the Q-Former that reads all frames of a clip.
        audio_qformer_config: the Q-Former that reads all segments of a sound; None without an audio branch.
        audio_config: ImageBind's audio trunk; None without an audio branch.
        text_config: any decoder of the LLaMA family.
        num_query_tokens: Q, rows that the frame Q-Former makes of one frame.
        num_video_query_tokens: soft tokens of a clip, whatever its length.
        num_audio_query_tokens: soft tokens of a sound, whatever its length.
        vision_output_layer_norm_eps: eps of the norm after the ViT (the published ``ln_vision``), which differs from
            that of the blocks.
        max_frame_positions: rows of the table of frame positions.
        frame_position_seconds: None: a frame's row is its place in the sequence, as published. A number u: its row is
            ``round(seconds / u)``, the last row for all later frames.
        max_audio_positions, audio_position_seconds: the same for segments of sound.
        position_initializer_range: std of the two position tables (1.0 as published).
        video_token_id, audio_token_id: placeholders in ``input_ids``; they may lie outside the vocabulary, as the
            published ones do.
    """

    model_type = "video_llama"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": SubConfigSpec(config_class=Blip2VisionConfig, init_kwargs={"initializer_range": 0.02}),
        "qformer_config": Blip2QFormerConfig,
        "video_qformer_config": SubConfigSpec(
            config_class=Blip2QFormerConfig, init_kwargs={"num_hidden_layers": 2, "cross_attention_frequency": 1}
        ),
        "audio_qformer_config": SubConfigSpec(config_class=Blip2QFormerConfig, optional=True),
        "audio_config": SubConfigSpec(config_class=ImageBindAudioConfig, optional=True),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: Any = None
    qformer_config: Any = None
    video_qformer_config: Any = None
    audio_qformer_config: Any = None
    audio_config: Any = None
    text_config: Any = None
    num_query_tokens: int = 32
    num_video_query_tokens: int = 32
    num_audio_query_tokens: int = 8
    vision_output_layer_norm_eps: float = 1e-5
    max_frame_positions: int = 32
    frame_position_seconds: float | int | None = None
    max_audio_positions: int = 8
    audio_position_seconds: float | int | None = None
    position_initializer_range: float | int = 1.0
    initializer_range: float = 0.02
    video_token_id: int = 32000
    audio_token_id: int = 32001
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # The widths that must fit each other are set here, so that no config can hold two opinions about them.
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        self.video_qformer_config.encoder_hidden_size = self.qformer_config.hidden_size
        if self.audio_config is not None:
            if self.audio_qformer_config is None:
                self.audio_qformer_config = Blip2QFormerConfig(num_hidden_layers=2, cross_attention_frequency=1)
            self.audio_qformer_config.encoder_hidden_size = self.audio_config.projection_dim
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        if self.video_token_id == self.audio_token_id:
            raise ValueError(
                f"video_token_id and audio_token_id must differ, both are {self.video_token_id}; change one of them"
            )

    @property
    def has_audio(self) -> bool:
        """Whether the model has an audio branch."""
        return self.audio_config is not None

    @classmethod
    def preset(cls, name: str) -> Self:
        """The published sizes.

        Args:
            name: ``"7b"`` or ``"13b"``.

        Raises:
            ValueError: for any other name.

        Source: sections 2.1 and 3 of the paper, and the released configurations.
        """
        if name not in _DECODERS:
            raise ValueError(f"no preset {name!r}; choose one of {', '.join(sorted(_DECODERS))}")
        return cls(
            audio_config={},
            text_config={
                "model_type": "llama",
                "vocab_size": 32000,
                "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-6,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
                **_DECODERS[name],
            },
        )
