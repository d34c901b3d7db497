"""ImageBind's trunks against torch's own attention, and their checks."""

from __future__ import annotations

import pytest
import torch

from videollm.models.imagebind import (
    ImageBindAudioConfig,
    ImageBindAudioModel,
    ImageBindConfig,
    ImageBindModel,
    ImageBindVisionConfig,
)
from videollm.models.imagebind.modeling_imagebind import ImageBindAttention

SMALL = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
MEL = {"num_mel_bins": 32, "target_length": 44, "patch_size": [16, 16], "patch_stride": [10, 10], "projection_dim": 20}


@pytest.fixture(scope="module")
def audio() -> ImageBindAudioModel:
    torch.manual_seed(0)
    return ImageBindAudioModel(ImageBindAudioConfig(**SMALL, **MEL, initializer_range=0.3)).eval()


@pytest.mark.parametrize("bias_kv", [True, False])
@torch.no_grad()
def test_attention_is_torch_multihead_attention(bias_kv: bool) -> None:
    torch.manual_seed(0)
    ours = ImageBindAttention(ImageBindAudioConfig(**SMALL, **MEL, add_bias_kv=bias_kv))
    theirs = torch.nn.MultiheadAttention(24, 4, bias=True, add_bias_kv=bias_kv, batch_first=True)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    names = {"in_proj.weight": "in_proj_weight", "in_proj.bias": "in_proj_bias"}
    theirs.load_state_dict({names.get(name, name): value for name, value in ours.state_dict().items()})
    tokens = torch.randn(3, 7, 24)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_have_the_length_of_the_scale_and_are_independent(audio: ImageBindAudioModel) -> None:
    mel = torch.randn(5, 1, 32, 44)
    embedded = audio(mel)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.full((5,), 20.0))
    torch.testing.assert_close(audio(mel[2:3]), embedded[2:3], atol=1e-5, rtol=0)
    assert (embedded[0] - embedded[1]).norm() > 0.1
    assert audio.tokens(mel).shape == (5, 1 + audio.config.grid[0] * audio.config.grid[1], 24)


def test_a_wrong_mel_image_is_refused(audio: ImageBindAudioModel) -> None:
    with pytest.raises(ValueError, match=r"must be \(B, 1, 32, 44\), found \(2, 1, 32, 40\)"):
        audio(torch.zeros(2, 1, 32, 40))
    with pytest.raises(ValueError, match="does not fit a mel image of 8 x 44"):
        ImageBindAudioModel(ImageBindAudioConfig(**SMALL, **(MEL | {"num_mel_bins": 8})))
    with pytest.raises(ValueError, match="multiple of num_attention_heads, found 24 and 5"):
        ImageBindAudioModel(ImageBindAudioConfig(**(SMALL | {"num_attention_heads": 5}), **MEL))


def test_drop_path_only_in_training(audio: ImageBindAudioModel) -> None:
    config = ImageBindAudioConfig(**SMALL, **MEL, drop_path_rate=0.5, initializer_range=0.3)
    trunk = ImageBindAudioModel(config)
    assert [block.drop_path for block in trunk.blocks] == [0.0, 0.25, 0.5]
    mel = torch.randn(64, 1, 32, 44)
    torch.manual_seed(1)
    assert not torch.equal(trunk.train()(mel), trunk(mel))
    assert torch.equal(trunk.eval()(mel), trunk(mel))
    # A dropped branch is made up for by the kept ones: the mean of a block's residual stays.
    block, tokens = trunk.blocks[2].train(), torch.randn(1, 4, 24).expand(4000, -1, -1)
    with torch.no_grad():
        branch = block._residual(tokens)
    torch.testing.assert_close(branch.mean(dim=0), tokens[0], atol=0.15, rtol=0)


@torch.no_grad()
def test_saved_and_loaded_with_both_trunks(tmp_path) -> None:
    vision = ImageBindVisionConfig(**SMALL, image_size=32, patch_size=8, projection_dim=20)
    model = ImageBindModel(ImageBindConfig(audio_config=ImageBindAudioConfig(**SMALL, **MEL), vision_config=vision))
    model.eval().save_pretrained(tmp_path)
    loaded = ImageBindModel.from_pretrained(tmp_path)
    mel, pixels = torch.randn(2, 1, 32, 44), torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.audio_model(mel), model.audio_model(mel))
    seen = loaded.vision_model(pixels)
    assert torch.equal(seen, model.vision_model(pixels))
    torch.testing.assert_close(seen.norm(dim=-1), torch.ones(2))
    assert ImageBindModel(ImageBindConfig(vision_config=vision)).audio_model is None
