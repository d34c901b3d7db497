"""The models: laws of batches and paddings, what the published ones get wrong, stages, saving and loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.lf_vila.small_lf_vila import TEXT, small_config, small_model, video
from videollm.models.lf_vila import (
    LfVilaConfig,
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
    LfVilaVideoConfig,
    losses,
)
from videollm.models.lf_vila.modeling_lf_vila import clip_means

EVERY = (
    LfVilaForPreTraining,
    LfVilaForRetrieval,
    LfVilaForQuestionAnswering,
    LfVilaForMultipleChoice,
    LfVilaForVideoClassification,
)


def words(batch: int, sentences: int = 4, empty: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids, sentences of different lengths, the last ``empty`` of each paragraph without words."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 60, (batch, sentences, 12), generator=generator)
    lengths = torch.randint(3, 13, (batch, sentences, 1), generator=generator)
    mask = (torch.arange(12) < lengths).long()
    if empty:
        mask[:, -empty:] = 0
    ids[:, :, 0] = 2
    return ids * mask, mask


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model(LfVilaForPreTraining)


@torch.no_grad()
def test_sentences_without_words_change_nothing(model: Any) -> None:
    ids, mask = words(2, 4, empty=2)
    said = model.text_encoder.read_sentences(ids, mask)
    padded, _ = model.text_encoder.read_paragraph(said, mask)
    without, _ = model.text_encoder.read_paragraph(said[:, :2], mask[:, :2])
    torch.testing.assert_close(model.paragraph_vectors(padded), model.paragraph_vectors(without), atol=1e-5, rtol=1e-5)
    published = small_model(LfVilaForPreTraining, as_published=True)
    padded, _ = published.text_encoder.read_paragraph(said, mask)
    without, _ = published.text_encoder.read_paragraph(said[:, :2], mask[:, :2])
    assert (published.paragraph_vectors(padded) - published.paragraph_vectors(without)).abs().max() > 1e-3


@torch.no_grad()
def test_batched_is_one_by_one(model: Any) -> None:
    pixels, (ids, mask) = video(8, 3), words(3)
    together = model(pixels, ids, mask)
    alone = model(pixels[1:2], ids[1:2], mask[1:2])
    for name in ("video_embeds", "text_embeds", "clip_embeds", "sentence_embeds"):
        torch.testing.assert_close(together[name][1:2], alone[name], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[name].norm(dim=-1), torch.ones(together[name].shape[:-1]))


def test_local_features_are_tapped_unless_as_published() -> None:
    assert small_config().local_features == "tap" and small_config(as_published=True).local_features == "final"
    assert small_config(as_published=True, local_features="tap").local_features == "tap"
    ids, mask = words(2)
    for as_published in (False, True):
        model = small_model(LfVilaForPreTraining, as_published=as_published)
        model(video(8, 2), ids, mask, draw=losses.draw_mtc(2, 4, 4, 4)).loss.backward()
        learned = model.video_encoder.local_projection.reduction.weight.grad
        assert (learned is None) == as_published  # D1: never trained


def test_local_features_do_not_see_far() -> None:
    """A clip of the first half is not told by the second, which the final features of the same windows are."""
    model, pixels = small_model(LfVilaForPreTraining), video(16)
    changed = pixels.clone()
    changed[:, 8:] += 1.0
    with torch.no_grad():
        one, two = model.encode_video(pixels, local=True), model.encode_video(changed, local=True)
    torch.testing.assert_close(one.local_tokens[:, :8], two.local_tokens[:, :8])
    assert (one.tokens[:, :8] - two.tokens[:, :8]).abs().max() > 1e-2


def test_clips_of_any_number_of_frames() -> None:
    tokens = torch.arange(7.0)[None, :, None, None]
    assert clip_means(tokens, 3)[0, :, 0].tolist() == [1.0, 3.5, 5.5]
    assert clip_means(tokens[:, :1], 1).shape == (1, 1, 1)


def test_the_second_stage_trains_its_own_part_only() -> None:
    model = small_model(LfVilaForPreTraining)
    model.freeze_first_stage()
    model.train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert any(name.startswith("video_encoder.") for name in frozen)
    assert "text_encoder.bert.encoder.layer.1.output.dense.weight" in frozen
    assert "text_encoder.bert.encoder.layer.2.output.dense.weight" not in frozen
    assert "text_encoder.bert.pooler.dense.weight" not in frozen  # D9
    assert not model.video_encoder.training and not model.text_encoder.bert.encoder.layer[0].training  # D11
    assert model.text_encoder.bert.encoder.layer[3].training and model.train(False).training is False

    model.eval()
    ids, mask = words(4)
    hidden, labels = losses.mask_words(ids, torch.arange(6), 4, 60, share=0.3)
    out = model(video(16, 4), hidden, mask, labels)
    out.loss.backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {name for name, _ in model.named_parameters()} - frozen
    assert out.vtm_labels.tolist() == [0, 0, 1, 1]
    assert len(out.mlm_logits) == (labels != losses.IGNORED).sum()


def test_without_masked_words_the_loss_is_a_number(model: Any) -> None:
    ids, mask = words(2)
    out = model(video(16, 2), ids, mask, torch.full_like(ids, losses.IGNORED))
    assert out.mlm_loss == 0 and out.loss.isfinite()


@torch.no_grad()
def test_questions_about_any_number_of_frames() -> None:
    ids, mask = words(2)
    model = small_model(LfVilaForQuestionAnswering, num_answers=5)
    for frames in (1, 7, 16, 40):
        assert model(video(frames, 2), ids, mask, torch.tensor([0, 4])).logits.shape == (2, 5)
    with pytest.raises(ValueError, match="read with 6 tokens of a frame, found 1; give frames of the size"):
        model(video(16, 2, 16, 16), ids, mask)
    published = small_model(LfVilaForQuestionAnswering, as_published=True)
    with pytest.raises(ValueError, match="read with 16 frames, found 7; give as many"):  # D17
        published(video(7, 2), ids, mask)


def test_choices_and_spans() -> None:
    model = small_model(LfVilaForMultipleChoice)
    ids, mask = (one.unflatten(0, (2, 3)) for one in words(6))
    spans = torch.zeros(2, 16, dtype=torch.int64)
    spans[:, 4:8] = 1
    out = model(video(16, 2), ids, mask, torch.tensor([1, 2]), spans)
    assert out.logits.shape == (2, 3) and out.span_logits.shape == (2, 16, 2)
    torch.testing.assert_close(out.loss, out.answer_loss + out.span_loss)
    out.loss.backward()
    assert model.span_classifier.weight.grad is not None and model.classifier.weight.grad is not None
    only = model(video(16, 2), ids, mask, span_labels=spans)
    assert only.answer_loss is None and only.loss is only.span_loss


@torch.no_grad()
def test_classes_are_scaled_unless_as_published() -> None:
    ours, published = (
        small_model(LfVilaForVideoClassification, num_answers=3, as_published=on) for on in (False, True)
    )
    one, other = ours(video(16)).logits, published(video(16)).logits
    bias = ours.classifier.bias
    torch.testing.assert_close(one - bias, (other - bias) / ours.config.temperature)  # D19


def test_too_long_and_too_many_are_refused(model: Any) -> None:
    ids = torch.ones(1, 9, 12, dtype=torch.int64)
    with pytest.raises(ValueError, match="may have 8 sentences and 64 tokens, found 9 x 12"):
        model.text_encoder.read_paragraph(model.text_encoder.read_sentences(ids, ids), ids)
    ids = torch.ones(1, 1, 65, dtype=torch.int64)
    with pytest.raises(ValueError, match="a sentence may have 64 tokens, found 65"):
        model.text_encoder.read_sentences(ids, ids)
    first = small_model(LfVilaForPreTraining, text_config=TEXT | {"num_hidden_layers": 2})
    ids, mask = words(2)
    assert first(video(4, 2), ids, mask).loss.isfinite()
    with pytest.raises(ValueError, match="of the first stage has no layers that read words and video together"):
        first(video(4, 2), ids, mask, ids)


def test_configs_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="are 3 \\+ 2, but BERT has 4 layers"):
        small_config(sentence_layers=3, paragraph_layers=2)
    with pytest.raises(ValueError, match="must be equally wide, found 32 and 64"):
        LfVilaForRetrieval(small_config(text_config=TEXT | {"hidden_size": 32}))
    with pytest.raises(ValueError, match="questions need layers"):
        LfVilaForQuestionAnswering(small_config(text_config=TEXT | {"num_hidden_layers": 2}))


@pytest.mark.parametrize("kind", EVERY)
@torch.no_grad()
def test_saved_and_loaded_is_the_same(kind: Any, tmp_path: Path) -> None:
    model = small_model(kind, as_published=True, masked_score=-10000.0)
    model.save_pretrained(tmp_path)
    loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert loaded.config.as_published and loaded.config.video_config.as_published
    assert loaded.config.masked_score == -10000.0 and isinstance(loaded.config.video_config, LfVilaVideoConfig)
    for (name, one), (_, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    pixels = video(16)
    torch.testing.assert_close(loaded.encode_video(pixels).tokens, model.encode_video(pixels).tokens)


def test_published_sizes() -> None:
    """FACTS of the published model: parameters of each model at full size."""
    told = {
        LfVilaForPreTraining: 461_483_972,
        LfVilaForQuestionAnswering: 424_948_874,
        LfVilaForMultipleChoice: 424_949_899,
    }
    for kind, count in told.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in kind(LfVilaConfig()).parameters()) == count


def test_gradient_checkpointing_changes_nothing(model: Any) -> None:
    ids, mask = words(2)
    draw = losses.draw_mtc(2, 4, 2, 2, torch.Generator().manual_seed(0))
    found = []
    for on in (False, True):
        other = small_model(LfVilaForPreTraining)
        if on:
            other.activation_checkpointing_enable()
        other.train()
        for module in other.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for layer in other.text_encoder.bert.encoder.layer:
            layer.attention.self.dropout.p = 0.0
        other(video(8, 2), ids, mask, draw=draw).loss.backward()
        found.append(other.video_encoder.groups[0].blocks[0].attn.relative_position_bias_table.grad)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)
