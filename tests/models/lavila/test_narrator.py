"""The narrator: the cache against none, batches against single clips, several sentences a clip, every way to decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.models.lavila.small import GPT2_TEXT, VISION, clips, narrator
from videollm.models.lavila import EntropyMeter, LavilaNarrator, LavilaNarratorConfig
from videollm.models.lavila.losses import caption_loss

END = 39


@pytest.fixture(scope="module")
def model() -> LavilaNarrator:
    return narrator()


def texts(count: int, length: int = 6) -> torch.Tensor:
    ids = torch.randint(0, END, (count, length), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = END
    return ids


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "nucleus": {"do_sample": True, "top_p": 0.95, "temperature": 0.7, "top_k": 0, "num_return_sequences": 3},
    "beams": {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
    "sampled beams": {"do_sample": True, "num_beams": 3, "num_return_sequences": 2},
    "groups": {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 3},
    "one-beam groups": {"num_beams": 5, "num_beam_groups": 5, "diversity_penalty": 0.7, "num_return_sequences": 5},
}


@pytest.mark.parametrize("way", WAYS)
def test_cached_is_uncached(model: LavilaNarrator, way: str) -> None:
    """The same ids, and the same scores, for two clips at once."""
    found = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        options = {"return_dict_in_generate": True, "output_logits": "group" not in way, **WAYS[way]}
        found.append(model.generate(pixel_values=clips(2), use_cache=use_cache, **options))
    assert torch.equal(found[0].sequences, found[1].sequences)
    assert len(found[0].sequences) == 2 * WAYS[way].get("num_return_sequences", 1)
    for cached, uncached in zip(found[0].get("logits") or (), found[1].get("logits") or (), strict=True):
        torch.testing.assert_close(cached, uncached, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["greedy", "beams", "groups"])
def test_batched_is_one_by_one(model: LavilaNarrator, way: str) -> None:
    pixels = clips(3)
    together = model.generate(pixel_values=pixels, **WAYS[way])
    rows = [row for i in range(3) for row in model.generate(pixel_values=pixels[i : i + 1], **WAYS[way])]
    for row, single in zip(together, rows, strict=True):
        longest = max(len(row), len(single))
        row, single = (torch.nn.functional.pad(r, (0, longest - len(r)), value=END) for r in (row, single))
        assert torch.equal(row, single)


def test_sentences_of_a_clip_share_its_keys(model: LavilaNarrator) -> None:
    """Three sentences of each of two clips, against a copy of the clip for every sentence."""
    pixels, ids = clips(2), texts(6)
    with torch.no_grad():
        tokens = model.get_visual_tokens(pixels)
        shared = model(ids, visual_tokens=tokens).logits
        copied = model(ids, visual_tokens=tokens.repeat_interleave(3, dim=0)).logits
        states = model.get_visual_states(tokens)
        torch.testing.assert_close(model(ids, visual_states=states).logits, shared)
        torch.testing.assert_close(model(ids, pixel_values=pixels).logits, shared)
    torch.testing.assert_close(shared, copied, atol=1e-5, rtol=1e-5)
    assert [seen is not None for seen in states] == [True, False, True]  # every second layer looks
    assert len(states[0][0]) == 2  # once for a clip, however many sentences


def test_visual_tokens_may_be_kept(model: LavilaNarrator) -> None:
    pixels = clips(2)
    with torch.no_grad():
        tokens = model.get_visual_tokens(pixels)
    by_tokens = model.generate(visual_tokens=tokens, do_sample=False)
    assert torch.equal(by_tokens, model.generate(pixel_values=pixels, do_sample=False))


def test_the_clip_matters_and_its_absence_too(model: LavilaNarrator) -> None:
    ids = texts(1)
    with torch.no_grad():
        seen = [model(ids, pixel_values=clips(1, seed=seed)).logits for seed in (1, 2)]
        blind = model(ids).logits
        plain = model.language_model(ids).logits
    assert not torch.allclose(seen[0], seen[1], atol=1e-3) and not torch.allclose(seen[0], blind, atol=1e-3)
    assert torch.equal(blind, plain)


def test_shut_gates_leave_the_language_model_alone() -> None:
    fresh = LavilaNarrator(narrator().config).eval()
    ids = texts(2)
    with torch.no_grad():
        torch.testing.assert_close(fresh(ids, pixel_values=clips(2)).logits, fresh(ids).logits)
        open_model = LavilaNarrator(narrator(gated_cross_attention=False).config).eval()
        assert not torch.allclose(open_model(ids, pixel_values=clips(2)).logits, open_model(ids).logits)


def test_groups_say_different_things(model: LavilaNarrator) -> None:
    options = {"num_beams": 6, "num_beam_groups": 6, "num_return_sequences": 6}
    with_penalty = model.generate(pixel_values=clips(1), diversity_penalty=5.0, **options)
    without = model.generate(pixel_values=clips(1), diversity_penalty=0.0, **options)
    assert len({tuple(row) for row in without.tolist()}) == 1
    assert len({tuple(row) for row in with_penalty.tolist()}) == 6
    assert len(set(with_penalty[:, 1].tolist())) == 6  # their first words already differ
    with pytest.raises(ValueError, match="must be a multiple of num_beam_groups"):
        model.generate(pixel_values=clips(1), num_beams=5, num_beam_groups=2)


def test_groups_of_one_are_beam_search(model: LavilaNarrator) -> None:
    """One group without a penalty is the library's beam search, where no sentence ends early."""
    from videollm.models.lavila import diverse_beam_search

    options = {"num_beams": 3, "num_return_sequences": 1, "eos_token_id": None, "pad_token_id": 0}
    ours = model.generate(pixel_values=clips(2), custom_generate=diverse_beam_search, num_beam_groups=1, **options)
    assert torch.equal(ours, model.generate(pixel_values=clips(2), **options))


def test_a_diversity_penalty_in_fewer_layers_of_code(model: LavilaNarrator) -> None:
    """Two groups of one beam, the second told apart from the first by hand at every step."""
    pixels, penalty = clips(1), 1.5
    out = model.generate(
        pixel_values=pixels, num_beams=2, num_beam_groups=2, num_return_sequences=2, diversity_penalty=penalty,
        eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
    )  # fmt: skip
    first, second, totals = [END], [END], [0.0, 0.0]
    with torch.no_grad():
        for _ in range(11):
            scores = model(torch.tensor([first, second]), pixel_values=pixels).logits[:, -1].log_softmax(dim=-1)
            word = int(scores[0].argmax())
            scores[1, word] -= penalty
            other = int(scores[1].argmax())
            totals = [totals[0] + float(scores[0, word]), totals[1] + float(scores[1, other])]
            first, second = [*first, word], [*second, other]
    expected = sorted(zip([t / 12 for t in totals], [first, second], strict=True), reverse=True)
    assert out.sequences.tolist() == [ids for _, ids in expected]
    torch.testing.assert_close(out.sequences_scores, torch.tensor([s for s, _ in expected]), atol=1e-5, rtol=1e-5)


def test_the_meter_changes_nothing_and_counts_to_the_end(model: LavilaNarrator) -> None:
    options = {"do_sample": True, "top_p": 0.9, "temperature": 1.5, "num_return_sequences": 4}
    torch.manual_seed(0)
    plain = model.generate(pixel_values=clips(2), **options)
    torch.manual_seed(0)
    meter = EntropyMeter(END)
    assert torch.equal(model.generate(pixel_values=clips(2), logits_processor=[meter], **options), plain)
    with torch.no_grad():
        logarithms = model(plain[:, :-1], pixel_values=clips(2)).logits.log_softmax(dim=-1)
    entropy = -(logarithms.exp() * logarithms).sum(dim=-1)
    for row, score, steps in zip(plain.tolist(), meter.scores.tolist(), entropy, strict=True):
        words = row[1:]
        count = words.index(END) + 1 if END in words else len(words)
        assert score == pytest.approx(float(steps[:count].mean().exp()), rel=1e-4)
    with pytest.raises(ValueError, match="nothing was generated"):
        _ = EntropyMeter(END).scores


def test_samples_are_drawn_from_all_words() -> None:
    """Not from the library's 50 likeliest, unless that is asked for."""
    text = {**GPT2_TEXT, "vocab_size": 120}
    config = LavilaNarratorConfig(vision_config=VISION, text_config=text, num_query_tokens=2, max_text_tokens=12)
    many = LavilaNarrator(config).eval()
    options = {"do_sample": True, "max_length": 3, "output_scores": True, "return_dict_in_generate": True}
    for given, left in (({}, 120), ({"top_k": 7}, 7)):
        out = many.generate(pixel_values=clips(1), **options, **given)
        assert [int(scores.isfinite().sum()) for scores in out.scores] == [left, left]


def test_loss_of_captions(model: LavilaNarrator) -> None:
    ids = texts(2)
    labels = ids.clone()
    labels[1, 4:] = -100
    with torch.no_grad():
        out = model(ids, pixel_values=clips(2), labels=labels)
    costs = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(out.loss, costs)
    published = caption_loss(out.logits[:, :-1], labels[:, 1:], as_published=True)
    torch.testing.assert_close(published.loss, costs * 8 / 10)  # 8 of 10 places are learned


def test_gradients_reach_what_is_new(model: LavilaNarrator) -> None:
    learner = narrator().train()
    learner.gradient_checkpointing_enable()
    ids = texts(2)
    learner(ids, pixel_values=clips(2), labels=ids).loss.backward()
    without = [name for name, p in learner.named_parameters() if p.grad is None]
    assert without == []
    assert all(p.grad.abs().sum() > 0 for n, p in learner.named_parameters() if "crossattention" in n or "pool" in n)


def test_saved_and_loaded(model: LavilaNarrator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, LavilaNarrator) and not report["missing_keys"] and not report["unexpected_keys"]
    assert again.generation_config.max_length == 12 and again.generation_config.eos_token_id == END
    options = {"pixel_values": clips(2), "num_beams": 3}
    assert torch.equal(again.generate(**options), model.generate(**options))
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pixel_values": clips(1), "visual_tokens": torch.zeros(1, 5, 24)}, "give one of them"),
        ({"pixel_values": clips(2)}, "3 sentences for 2 clips"),
    ],
)
def test_what_does_not_fit(model: LavilaNarrator, given: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model(texts(3), **given)


def test_captions_longer_than_the_decoder() -> None:
    with pytest.raises(Exception, match="max_text_tokens is 21, the decoder has 20 positions"):
        narrator(max_text_tokens=21)
