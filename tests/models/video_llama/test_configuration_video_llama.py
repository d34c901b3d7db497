"""The configuration: strict, saved and loaded, and with presets of exactly the published sizes."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration

# Published counts: what the two training branches train, and the frozen encoders.
TRAINED = {"7b": (22_104_064, 22_855_680), "13b": (22_891_520, 23_643_136)}
VIT_PARAMETERS, IMAGEBIND_AUDIO_PARAMETERS, QFORMER_PARAMETERS = 985_894_528, 86_235_648, 105_137_664


@pytest.fixture(scope="module", params=["7b", "13b"])
def preset(request: pytest.FixtureRequest) -> tuple[str, VideoLlamaForConditionalGeneration]:
    with torch.device("meta"):
        return request.param, VideoLlamaForConditionalGeneration(VideoLlamaConfig.preset(request.param))


def count(*modules: torch.nn.Module | torch.nn.Parameter) -> int:
    return sum(
        module.numel() if isinstance(module, torch.nn.Parameter) else sum(p.numel() for p in module.parameters())
        for module in modules
    )


def test_presets_have_the_published_numbers_of_parameters(preset) -> None:
    name, model = preset
    video = count(model.video_qformer, model.video_query_tokens, model.frame_position_embedding, model.video_projection)
    audio = count(model.audio_qformer, model.audio_query_tokens, model.audio_position_embedding, model.audio_projection)
    assert (video, audio) == TRAINED[name]
    # The library keeps a row of key biases in every block of the ViT; it is always zero and not part of the count.
    vision = model.config.vision_config
    key_biases = vision.num_hidden_layers * vision.hidden_size
    assert count(model.vision_model) - count(model.vision_model.post_layernorm) - key_biases == VIT_PARAMETERS
    assert count(model.qformer) == QFORMER_PARAMETERS
    assert count(model.audio_model) == IMAGEBIND_AUDIO_PARAMETERS


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match="no preset '70b'; choose one of 13b, 7b"):
        VideoLlamaConfig.preset("70b")


def test_wrong_types_are_refused() -> None:
    with pytest.raises(StrictDataclassError, match="num_query_tokens"):
        VideoLlamaConfig(num_query_tokens="many")


def test_placeholders_must_differ() -> None:
    with pytest.raises(ValueError, match="must differ, both are 7"):
        VideoLlamaConfig(video_token_id=7, audio_token_id=7)


def test_published_defaults() -> None:
    config = VideoLlamaConfig.preset("7b")
    assert config.vision_output_layer_norm_eps == 1e-5 and config.vision_config.layer_norm_eps == 1e-6
    assert config.vision_config.initializer_range == config.video_qformer_config.initializer_range == 0.02
    assert config.audio_config.grid == (12, 19)
    assert config.frame_position_seconds is None and config.audio_position_seconds is None


def test_widths_follow_each_other(config) -> None:
    assert config.qformer_config.encoder_hidden_size == config.vision_config.hidden_size
    assert config.video_qformer_config.encoder_hidden_size == config.qformer_config.hidden_size
    assert config.audio_qformer_config.encoder_hidden_size == config.audio_config.projection_dim


def test_without_audio() -> None:
    config = VideoLlamaConfig(audio_config=None)
    assert not config.has_audio and config.audio_qformer_config is None


def test_saved_and_loaded(config, tmp_path) -> None:
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is VideoLlamaConfig
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
