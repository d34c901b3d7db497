"""The model: batches, masks, positions, caches, generation, saving."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, DynamicCache

from tests.models.conftest import small_config
from videollm.messages import MediaPart, assistant, user
from videollm.models.video_llama import VideoLlamaForConditionalGeneration

CONVERSATIONS = [
    [user("what is there?", [MediaPart("long")])],
    [user("one loud beep", [MediaPart("sound", "audio"), MediaPart("silent"), MediaPart("short")])],
    [user("yes, twice, at 2.5 s.", [MediaPart("still", "image")]), assistant("a red ball"), user("what?")],
    [user("nothing to see")],
]


@pytest.fixture
def batch(processor, clips):
    return processor(CONVERSATIONS, clips)


@torch.no_grad()
def test_batched_is_single(model, processor, clips, batch) -> None:
    together = model(**batch).logits
    for row, conversation in enumerate(CONVERSATIONS):
        alone = model(**processor([conversation], clips)).logits[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_right_padding_is_left_padding(model, processor, clips, batch) -> None:
    right = processor(CONVERSATIONS, clips, padding="right")
    left_logits, right_logits = model(**batch).logits, model(**right).logits
    for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        torch.testing.assert_close(left_logits[row, -length:], right_logits[row, :length], atol=1e-4, rtol=0)


@torch.no_grad()
def test_padding_of_clips_is_not_seen_and_real_frames_are(model, batch) -> None:
    frames, mask = batch["pixel_values"], batch["frame_mask"]
    sound, heard = batch["audio_values"], batch["segment_mask"]
    assert not mask.all() and not heard.all()
    before = model(**batch).logits
    noise = torch.Generator().manual_seed(1)
    changed = torch.where(mask[..., None, None, None], frames, torch.randn(frames.shape, generator=noise))
    changed_sound = torch.where(heard[..., None, None, None], sound, torch.randn(sound.shape, generator=noise))
    seconds = torch.where(mask, batch["frame_seconds"], 3.0)
    padded = model(**{**batch, "pixel_values": changed, "audio_values": changed_sound, "frame_seconds": seconds})
    torch.testing.assert_close(padded.logits, before)
    row, last = 0, int(mask[0].sum()) - 1
    changed = frames.clone()
    changed[row, last] += 1.0
    assert (model(**{**batch, "pixel_values": changed}).logits - before)[0].abs().max() > 1e-3
    changed = sound.clone()
    changed[0, int(heard[0].sum()) - 1] += 1.0
    assert (model(**{**batch, "audio_values": changed}).logits - before)[0].abs().max() > 1e-3


@torch.no_grad()
def test_kept_states_are_encoded_frames(model, batch) -> None:
    pixels, mask, seconds = batch["pixel_values"], batch["frame_mask"], batch["frame_seconds"]
    states = model.encode_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    kept = model.get_video_features(None, mask, seconds, frame_states=states)
    torch.testing.assert_close(kept, model.get_video_features(pixels, mask, seconds), atol=1e-5, rtol=0)
    sound, mask, seconds = batch["audio_values"], batch["segment_mask"], batch["segment_seconds"]
    states = model.encode_audio_segments(sound.flatten(0, 1)).unflatten(0, sound.shape[:2])
    kept = model.get_audio_features(None, mask, seconds, segment_states=states)
    torch.testing.assert_close(kept, model.get_audio_features(sound, mask, seconds), atol=1e-5, rtol=0)


@torch.no_grad()
def test_positions_by_seconds(model, batch) -> None:
    pixels = batch["pixel_values"][:1]
    at = torch.arange(pixels.shape[1])[None] * 0.25
    before = model.get_video_features(pixels, frame_seconds=at)
    # 0.24 s rounds to the same quarter of a second; half a second later is another place.
    torch.testing.assert_close(model.get_video_features(pixels, frame_seconds=(at - 0.01).clamp(min=0)), before)
    assert (model.get_video_features(pixels, frame_seconds=at + 0.5) - before).abs().max() > 1e-3
    # Beyond the table all is its last row.
    late = model.get_video_features(pixels, frame_seconds=at + 100)
    torch.testing.assert_close(model.get_video_features(pixels, frame_seconds=at + 200), late)
    with pytest.raises(ValueError, match="frame_seconds was not given"):
        model.get_video_features(pixels)


@torch.no_grad()
def test_positions_by_order(tokenizer, batch) -> None:
    config = small_config(tokenizer, frame_position_seconds=None, audio_position_seconds=None, max_frame_positions=4)
    model = VideoLlamaForConditionalGeneration(config).eval()
    pixels = batch["pixel_values"][:1, :4]
    before = model.get_video_features(pixels)
    torch.testing.assert_close(model.get_video_features(pixels, frame_seconds=torch.rand(1, 4)), before)
    assert (model.get_video_features(pixels.flip(1)) - before).abs().max() > 1e-4
    # Left padding does not move the real frames.
    padded = torch.cat([torch.zeros_like(pixels[:, :2]), pixels], dim=1)
    mask = torch.tensor([[False, False, True, True, True, True]])
    torch.testing.assert_close(model.get_video_features(padded, mask), before, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="5 frames were given, but the model has 4 frame positions; sample fewer"):
        model.get_video_features(batch["pixel_values"][:1, :5])
    with pytest.raises(ValueError, match="17 segments were given"):
        model.get_audio_features(segment_states=torch.zeros(1, 17, 32))


@torch.no_grad()
def test_generation_from_pixels_features_and_embeddings(model, processor, clips, batch) -> None:
    options = {"max_new_tokens": 6, "do_sample": False}
    length = batch["input_ids"].shape[1]
    from_pixels = model.generate(**batch, **options)[:, length:]
    words = {key: batch[key] for key in ("input_ids", "attention_mask")}
    video = model.get_video_features(batch["pixel_values"], batch["frame_mask"], batch["frame_seconds"])
    audio = model.get_audio_features(batch["audio_values"], batch["segment_mask"], batch["segment_seconds"])
    features = {"video_features": video, "audio_features": audio}
    assert from_pixels.tolist() == model.generate(**words, **features, **options)[:, length:].tolist()
    embeds = model.embed(words["input_ids"], **features)
    from_embeds = model.generate(inputs_embeds=embeds, attention_mask=words["attention_mask"], **options)
    assert from_pixels.tolist() == from_embeds.tolist()
    for row, conversation in enumerate(CONVERSATIONS):
        one = processor([conversation], clips)
        alone = model.generate(**one, **options)[0, one["input_ids"].shape[1] :].tolist()
        assert from_pixels[row, : len(alone)].tolist() == alone


@torch.no_grad()
def test_beams_with_several_clips_in_a_row(model, processor, clips, batch) -> None:
    """Expanding a batch for beams must keep every row's clips together."""
    options = {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    for row, conversation in enumerate(CONVERSATIONS):
        one = processor([conversation], clips)
        alone = model.generate(**one, **options)[:, one["input_ids"].shape[1] :]
        assert together[2 * row : 2 * row + 2, : alone.shape[1]].tolist() == alone.tolist()


@torch.no_grad()
def test_placeholders_are_never_generated(model, processor, clips, config) -> None:
    assert model.generation_config.suppress_tokens == [config.video_token_id, config.audio_token_id]


@torch.no_grad()
def test_cached_is_uncached(model, processor, clips) -> None:
    one = processor([CONVERSATIONS[1]], clips)
    out = model.generate(
        **one, max_new_tokens=8, do_sample=False, return_dict_in_generate=True, output_logits=True, eos_token_id=None
    )
    media = {key: value for key, value in one.items() if key not in ("input_ids", "attention_mask")}
    uncached = model(input_ids=out.sequences, use_cache=False, **media).logits[0, -9:-1]
    torch.testing.assert_close(torch.cat(out.logits), uncached, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_second_turn_feeds_only_what_is_new(model, processor, clips) -> None:
    """With the first turn's cache, the clip of the first turn is not encoded again and the second turn's clip is."""
    first = [user("what is there?", [MediaPart("long")])]
    one = processor([first], clips)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    cache = DynamicCache(config=model.config.get_text_config())
    answer = model.generate(**one, past_key_values=cache, **options)[0, one["input_ids"].shape[1] :].tolist()
    second = [*first, assistant("spoken", answer), user("yes?", [MediaPart("short"), MediaPart("silent")])]
    two = processor([second], clips)
    assert two["input_ids"][0, : one["input_ids"].shape[1]].tolist() == one["input_ids"][0].tolist()
    seen: list[int] = []
    handle = model.vision_model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    try:
        cached = model.generate(**two, past_key_values=cache, **options)
    finally:
        handle.remove()
    assert seen == [int(two["frame_mask"][1:].sum())]
    assert cached.tolist() == model.generate(**two, **options).tolist()


@torch.no_grad()
def test_a_cache_cut_inside_a_clip_is_refused(model, processor, clips) -> None:
    one = processor([CONVERSATIONS[0]], clips)
    cache = DynamicCache(config=model.config.get_text_config())
    model(inputs_embeds=torch.zeros(1, 4, model.config.text_config.hidden_size), past_key_values=cache)
    with pytest.raises(ValueError, match="do not cut a prompt or a cache inside a clip"):
        model.generate(**one, past_key_values=cache, max_new_tokens=2)


@torch.no_grad()
def test_placeholders_and_soft_tokens_must_agree(model, batch) -> None:
    words = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="24 video placeholders, but 0 soft video tokens"):
        model(**words)
    with pytest.raises(ValueError, match="0 audio placeholders, but 3 soft audio tokens"):
        model(input_ids=torch.tensor([[1, 8]]), audio_features=torch.zeros(1, 3, 64))
    with pytest.raises(ValueError, match="exactly one"):
        model()


@torch.no_grad()
def test_placeholders_may_lie_outside_the_vocabulary(tokenizer, batch, config) -> None:
    outside = small_config(tokenizer, video_token_id=32000, audio_token_id=32001)
    model = VideoLlamaForConditionalGeneration(outside).eval()
    ids = batch["input_ids"].clone()
    ids[ids == config.video_token_id] = 32000
    ids[ids == config.audio_token_id] = 32001
    out = model.generate(**{**batch, "input_ids": ids}, max_new_tokens=2)
    assert out.shape == (4, ids.shape[1] + 2)


def test_loss_is_the_causal_loss_without_placeholders(model, batch, config) -> None:
    ids = batch["input_ids"]
    out = model(**batch, labels=ids.masked_fill(batch["attention_mask"] == 0, -100))
    wanted = ids.clone()
    wanted[(ids == config.video_token_id) | (ids == config.audio_token_id) | (batch["attention_mask"] == 0)] = -100
    by_hand = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten())
    torch.testing.assert_close(out.loss, by_hand)


def test_gradient_checkpointing_gives_the_same_gradients(tokenizer, batch) -> None:
    qformer = dict(small_config(tokenizer).qformer_config.to_dict(), hidden_dropout_prob=0.0)
    qformer["attention_probs_dropout_prob"] = 0.0
    config = small_config(tokenizer, qformer_config=qformer, video_qformer_config=qformer, audio_qformer_config=qformer)
    config.audio_config.drop_path_rate = 0.0
    model = VideoLlamaForConditionalGeneration(config).train()
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
            for room in (
                model.vision_model,
                model.qformer,
                model.video_qformer,
                model.audio_model,
                model.language_model,
            ):
                assert room.is_activation_checkpointing
        model.zero_grad()
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        grads.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@torch.no_grad()
def test_saved_and_loaded(model, batch, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    before = model(**batch).logits
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is VideoLlamaForConditionalGeneration
        assert torch.equal(loaded(**batch).logits, before)
        assert loaded.vision_model.post_layernorm.eps == 1e-5
        assert loaded.vision_model.encoder.layers[0].layer_norm1.eps == 1e-6
        assert loaded.generation_config.eos_token_id == model.config.eos_token_id


@torch.no_grad()
def test_everything_runs_on_sdpa(model) -> None:
    for room in (model.vision_model, model.qformer, model.video_qformer, model.audio_qformer, model.language_model):
        assert room.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_bfloat16(tokenizer, batch) -> None:
    """Everything in bfloat16 runs, and says about the same (with weights of the usual size, which do not amplify)."""
    config = small_config(tokenizer, initializer_range=0.02)
    for part in (config.vision_config, config.qformer_config, config.video_qformer_config, config.text_config):
        part.initializer_range = 0.05
    model = VideoLlamaForConditionalGeneration(config).eval()
    full = model(**batch).logits
    rounded = model.to(torch.bfloat16)(**batch)
    assert rounded.logits.dtype == rounded.video_features.dtype == rounded.audio_features.dtype == torch.bfloat16
    real = batch["attention_mask"].bool()
    similarity = torch.nn.functional.cosine_similarity(full[real], rounded.logits[real].float(), dim=-1)
    assert similarity.min() > 0.99


@torch.no_grad()
def test_without_an_audio_branch(tokenizer, processor, clips) -> None:
    config = small_config(tokenizer, audio_config=None, audio_qformer_config=None)
    model = VideoLlamaForConditionalGeneration(config).eval()
    assert not [name for name in model.state_dict() if name.startswith("audio")]
    one = processor([[user("what?", [MediaPart("silent")])]], clips)
    assert model.generate(**one, max_new_tokens=2).shape[1] == one["input_ids"].shape[1] + 2
    with pytest.raises(ValueError, match="no audio branch"):
        model.get_audio_features(torch.zeros(1, 1, 1, 32, 48))


def test_initial_weights(tokenizer) -> None:
    torch.manual_seed(0)
    changes = {"initializer_range": 0.02, "num_video_query_tokens": 64, "max_frame_positions": 64}
    model = VideoLlamaForConditionalGeneration(small_config(tokenizer, **changes))
    assert model.video_query_tokens.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.frame_position_embedding.weight.std().item() == pytest.approx(1.0, rel=0.1)
    assert model.vision_model.embeddings.position_embedding.std().item() == pytest.approx(0.3, rel=0.15)
    assert model.audio_model.position_embedding.std().item() == pytest.approx(0.3, rel=0.15)
    assert model.video_projection.weight.std().item() == pytest.approx(0.02, rel=0.1)
