"""The dual encoder and the classifiers: each side alone, batches, losses, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForVideoClassification

from tests.models.lavila.small import BERT_TEXT, CLIP_TEXT, classifier, clips, dual_encoder, words
from videollm.models.lavila import LavilaDualEncoder, LavilaForVideoClassification


@pytest.mark.parametrize("text", [CLIP_TEXT, BERT_TEXT], ids=["clip", "distilbert"])
def test_each_side_alone_is_both_together(text: dict[str, Any]) -> None:
    model, pixels, ids = dual_encoder(text), clips(3), words(3, 50)
    mask = (ids > 0).long()
    with torch.no_grad():
        both = model(pixels, ids, mask, return_loss=True)
        assert torch.equal(model(pixels).video_embeds, both.video_embeds)
        assert torch.equal(model(input_ids=ids, attention_mask=mask).text_embeds, both.text_embeds)
        one = torch.cat(
            [model(input_ids=i[None], attention_mask=m[None]).text_embeds for i, m in zip(ids, mask, strict=True)]
        )
    torch.testing.assert_close(one, both.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.video_embeds.norm(dim=-1), torch.ones(3))
    wanted = model.logit_scale * both.video_embeds @ both.text_embeds.mT
    torch.testing.assert_close(both.logits_per_video, wanted)
    own = torch.arange(3)
    loss = (torch.nn.functional.cross_entropy(wanted, own) + torch.nn.functional.cross_entropy(wanted.mT, own)) / 2
    torch.testing.assert_close(both.loss, loss)


def test_padding_of_texts_changes_nothing() -> None:
    for text in (CLIP_TEXT, BERT_TEXT):
        model, ids = dual_encoder(text), words(3, 50)
        longer = torch.nn.functional.pad(ids, (0, 3))
        with torch.no_grad():
            found = [model(input_ids=i, attention_mask=(i > 0).long()).text_embeds for i in (ids, longer)]
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, pixels, ids = dual_encoder(BERT_TEXT, nonlinear_projection=True), clips(2), words(2, 50)
    model.save_pretrained(tmp_path)
    again, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, LavilaDualEncoder) and not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(again(pixels, ids, ids > 0).logits_per_video, model(pixels, ids, ids > 0).logits_per_video)


def test_the_temperature_stays_within_limits_and_finds_back() -> None:
    model = dual_encoder()
    for stored, scale in ((9.0, 100.0), (-3.0, 1.0), (2.0, float(torch.tensor(2.0).exp()))):
        with torch.no_grad():
            model.log_logit_scale.fill_(stored)
        model.zero_grad()
        model.logit_scale.backward()
        assert model.logit_scale.item() == pytest.approx(scale, rel=1e-5)
        assert model.log_logit_scale.grad is not None and model.log_logit_scale.grad > 0


def test_new_models_begin_as_published() -> None:
    model = LavilaDualEncoder(dual_encoder().config)
    assert model.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    head = LavilaForVideoClassification(classifier(3000).config).heads[0]
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05) and not head.bias.any()


def test_nothing_and_half_of_it() -> None:
    model = dual_encoder()
    with pytest.raises(ValueError, match="neither clips nor texts"):
        model()
    with pytest.raises(ValueError, match="needs clips and their texts"):
        model(clips(1), return_loss=True)


def test_one_head_and_three(tmp_path: Path) -> None:
    for classes in ((7,), (4, 5, 6)):
        model, pixels = classifier(*classes), clips(2)
        labels = torch.tensor([[c - 1 for c in classes], [0] * len(classes)])
        with torch.no_grad():
            out = model(pixels, labels)
            assert [tuple(scores.shape) for scores in out.logits] == [(2, n) for n in classes]
            losses = [torch.nn.functional.cross_entropy(s, labels[:, i]) for i, s in enumerate(out.logits)]
            torch.testing.assert_close(out.loss, torch.stack(losses).sum())
            folder = tmp_path / str(len(classes))
            model.save_pretrained(folder)
            again = AutoModelForVideoClassification.from_pretrained(folder)
            assert isinstance(again, LavilaForVideoClassification)
            assert torch.equal(again(pixels).logits[0], out.logits[0])
    with pytest.raises(ValueError, match="labels for 1 heads were given, this model has 3"):
        model(pixels, torch.zeros(2, dtype=torch.long))
