"""Which prefix of a prompt is kept."""

import pytest
import torch

from tests.small_model import drawn_clip, small_model
from videollm.chat.cache import EncodedMedia, KeyValueCache, common_prefix, prompt_positions
from videollm.chat.generation import forward


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [1], 0),
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2, 3], [1, 2, 4], 2),
        ([1, 2], [1, 2, 3], 2),
        ([1, ("x", 0), ("x", 1), 2], [1, ("y", 0), ("y", 1), 2], 1),
        ([1, ("x", 0), ("x", 1), 2], [1, ("x", 0), ("x", 1), 3], 3),
    ],
)
def test_common_prefix(a, b, expected):
    assert common_prefix(a, b) == common_prefix(b, a) == expected


def test_a_media_position_is_its_content_and_row_not_its_placeholder():
    assert prompt_positions([7, 99, 99, 8], [(1, 2, "hash")]) == [7, ("hash", 0), ("hash", 1), 8]
    with pytest.raises(ValueError, match="outside a prompt of 4"):
        prompt_positions([7, 99, 99, 8], [(3, 2, "hash")])


@pytest.fixture(scope="module")
def model():
    return small_model()[0]


def filled(model, positions):
    """A cache that holds some text positions, computed for real."""
    cache = KeyValueCache()
    with torch.inference_mode():
        embeds = model.get_input_embeddings()(torch.tensor([[p if isinstance(p, int) else 0 for p in positions]]))
        forward(model, cache, embeds, positions)
    return cache


def lengths(cache):
    return {t.shape[-2] for layer in cache.states.layers for t in (layer.keys, layer.values)}


def test_crops_to_what_is_shared(model):
    cache = filled(model, [10, 11, 12, 13, 14])
    assert cache.keep_common_prefix([10, 11, 12, 99, 14, 15]) == 3
    assert cache.positions == [10, 11, 12]
    assert lengths(cache) == {3}


def test_leaves_the_last_position_to_compute(model):
    cache = filled(model, [10, 11, 12])
    assert cache.keep_common_prefix([10, 11, 12]) == 2
    assert cache.keep_common_prefix([10]) == 0
    assert len(cache) == 0


def test_keeps_a_clip_whole_or_not_at_all(model):
    positions = [10, ("x", 0), ("x", 1), ("x", 2), 11]
    cache = filled(model, positions)
    assert cache.keep_common_prefix([*positions[:3], 12]) == 3  # another clip's rows would differ from their first on
    cache = filled(model, positions[:3])  # a prefill that was stopped inside a clip
    assert cache.keep_common_prefix(positions) == 1
    assert lengths(cache) == {1}


def test_two_clips_side_by_side_are_two(model):
    positions = [("x", 0), ("x", 1), ("y", 0), ("y", 1), 10]
    cache = filled(model, positions)
    assert cache.keep_common_prefix([("x", 0), ("x", 1), ("z", 0), ("z", 1), 10]) == 2


def test_states_longer_than_the_positions_are_cropped(model):
    """What a forward pass leaves that was interrupted between two layers, or between keys and values."""
    cache = filled(model, [10, 11, 12])
    layer = cache.states.layers[0]
    layer.keys = torch.cat([layer.keys, layer.keys], dim=-2)
    assert cache.keep_common_prefix([10, 11, 12, 13]) == 3
    assert lengths(cache) == {3}


def test_states_that_are_too_short_are_thrown_away(model):
    cache = filled(model, [10, 11, 12])
    cache.states.layers[-1].values = cache.states.layers[-1].values[..., :1, :]
    assert cache.keep_common_prefix([10, 11, 12, 13]) == 0
    assert len(cache) == 0 and not cache.states.layers


def test_media_are_encoded_once_by_content_whatever_they_are_called(monkeypatch):
    model, processor = small_model()
    calls = []
    monkeypatch.setattr(model, "encode_frames", lambda x, f=model.encode_frames: calls.append(len(x)) or f(x))
    encoded = EncodedMedia()
    first = encoded.get(model, processor, drawn_clip(1, name="a"), "video")
    assert encoded.get(model, processor, drawn_clip(1, name="b"), "video") is first
    assert calls == [4]
    assert not torch.equal(encoded.get(model, processor, drawn_clip(2), "video"), first)
    assert calls == [4, 4]
    with pytest.raises(ValueError, match="has no video"):
        encoded.get(model, processor, drawn_clip(3, frames=0), "video")


def test_other_settings_of_the_processor_are_other_features():
    model, processor = small_model()
    encoded = EncodedMedia()
    before = encoded.get(model, processor, drawn_clip(1), "video")
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert not torch.equal(encoded.get(model, processor, drawn_clip(1), "video"), before)
