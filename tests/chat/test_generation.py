"""Options, choices of tokens, stopping, and words out of tokens."""

import math

import pytest
import torch

from tests.small_model import TEXTS, small_model
from videollm.chat.cache import KeyValueCache
from videollm.chat.generation import (
    Decoding,
    GenerationOptions,
    Step,
    Stepper,
    TokenChooser,
    WordStream,
    prefill,
    take_step,
)
from videollm.errors import ChatError, ConfigError
from videollm.models.video_llama.tiny_tokenizer import build_tiny_tokenizer


@pytest.fixture(scope="module")
def model():
    return small_model()[0]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tiny_tokenizer(TEXTS, 300)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
        {"max_new_tokens": True},
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"top_k": -1},
        {"repetition_penalty": 0},
        {"seed": -1},
        {"seed": 1.5},
    ],
    ids=str,
)
def test_an_option_out_of_range_is_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=rf"^{name} must be .*, found {value!r}$"):
        GenerationOptions(**wrong)


def decode(model, prompt, **kwargs):
    options = kwargs.pop("options", GenerationOptions(max_new_tokens=20))
    defaults = {"limit": options.max_new_tokens, "stop_sequences": []}
    cache, logits = prefilled(model, prompt)
    decoding, ids = Decoding(options, **{**defaults, **kwargs}), []
    while decoding.finish is None:
        ids += decoding.choose(logits)
        if decoding.finish is None:
            logits = take_step(model, Step(cache, decoding.last_id))
    return ids, decoding, cache


def prefilled(model, prompt):
    cache = KeyValueCache()
    with torch.inference_mode():
        embeds = model.get_input_embeddings()(torch.tensor([prompt]))
    reading = prefill(model, cache, embeds, prompt, lambda: False)
    while True:
        try:
            next(reading)
        except StopIteration as read:
            return cache, read.value


PROMPT = [0, 40, 41, 42, 43]


def library(model, **options):
    """The library's own answer."""
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=None, max_new_tokens=20, **options)
    return out[0, len(PROMPT) :].tolist()


def test_greedy_is_the_librarys(model):
    ids, decoding, cache = decode(model, PROMPT)
    assert ids == library(model, do_sample=False)
    assert decoding.finish == "length"
    assert cache.positions == [*PROMPT, *ids[:-1]]


def test_ids_that_must_never_be_said_are_not(model):
    plain = decode(model, PROMPT)[0]
    never = sorted(set(plain))[:3]
    ids = decode(model, PROMPT, never=never)[0]
    assert not set(ids) & set(never)
    assert ids == library(model, do_sample=False, suppress_tokens=never)


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(model):
    plain = decode(model, PROMPT)[0]
    stop = next(i for i in range(3, 20) if plain[i] not in plain[:i])
    ids, decoding, cache = decode(model, PROMPT, stop_sequences=[(plain[stop],)])
    assert ids == plain[:stop]
    assert decoding.finish == "end"
    assert cache.positions == [*PROMPT, *ids]


def test_a_stop_sequence_is_held_back_until_it_is_clear(model):
    plain = decode(model, PROMPT)[0]
    given = []
    _, decoding, _ = decode(model, PROMPT, stop_sequences=[tuple(plain[5:8])])
    given = decode(model, PROMPT, stop_sequences=[tuple(plain[5:8])])[0]
    assert given == plain[:5]
    assert decoding.finish == "end"
    # A sequence that begins alike and goes on otherwise is text.
    almost = (*plain[5:7], next(i for i in range(300) if i != plain[7]))
    assert decode(model, PROMPT, stop_sequences=[almost])[0] == plain
    # Text that is held back when the limit comes is given out.
    assert decode(model, PROMPT, stop_sequences=[(plain[-1], plain[0], plain[0])])[0] == plain


def test_what_was_held_back_is_given_when_an_answer_is_stopped(model):
    plain = decode(model, PROMPT)[0]
    cache, logits = prefilled(model, PROMPT)
    decoding = Decoding(GenerationOptions(), limit=20, stop_sequences=[tuple(plain[:3])])
    assert decoding.choose(logits) == []
    assert decoding.choose(take_step(model, Step(cache, decoding.last_id))) == []
    assert decoding.rest() == plain[:2]
    assert decoding.rest() == [] and decoding.finish is None


def test_a_step_that_fails_harms_no_other(model):
    """Whatever it is that fails: here a token that there is not."""
    prompts = [PROMPT, [0, 44], [0, 45, 46]]
    caches = [prefilled(model, prompt)[0] for prompt in prompts]
    stepper = Stepper(model)
    before = stepper.take([Step(cache, 50) for cache in caches])
    assert all(isinstance(logits, torch.Tensor) for logits in before)
    found = stepper.take([Step(cache, token) for cache, token in zip(caches, (51, 10**6, 52), strict=True)])
    assert isinstance(found[1], IndexError)
    for place, token in ((0, 51), (2, 52)):
        cache = prefilled(model, prompts[place])[0]
        take_step(model, Step(cache, 50))
        torch.testing.assert_close(found[place], take_step(model, Step(cache, token)), atol=1e-5, rtol=0)
        assert caches[place].positions == cache.positions
    assert caches[1].positions == [0, 44, 50]


def test_numbers_that_are_none_stay_in_their_row(model):
    caches = [prefilled(model, [0, *range(40, 40 + length)])[0] for length in (30, 3, 5)]
    with torch.inference_mode():
        for layer in caches[0].states.layers:
            layer.keys[:, :, 7] = layer.values[:, :, 7] = math.nan
    stepper = Stepper(model)
    for token in range(50, 53):
        sick, *healthy = stepper.take([Step(cache, token) for cache in caches])
        assert sick.isnan().any() and not any(logits.isnan().any() for logits in healthy)
    # Its row is taken by another, and no rest of it is seen.
    assert not any(logits.isnan().any() for logits in stepper.take([Step(cache, 53) for cache in caches[1:]]))
    new = prefilled(model, PROMPT)[0]
    assert not any(logits.isnan().any() for logits in stepper.take([Step(c, 54) for c in (*caches[1:], new)]))


def test_a_batch_gives_its_memory_back(model):
    caches = [prefilled(model, PROMPT)[0] for _ in range(3)]
    alone = caches[0].nbytes
    stepper = Stepper(model)
    stepper.take([Step(cache, 50) for cache in caches])
    assert stepper.memory_bytes == sum(cache.nbytes for cache in caches) > 3 * alone
    stepper.take([])
    assert stepper.memory_bytes == 0
    assert [cache.nbytes for cache in caches] == [alone // 5 * 6] * 3


def test_drawing_is_repeatable_with_a_seed_and_differs_between_seeds(model):
    def draw(seed):
        return decode(model, PROMPT, options=GenerationOptions(max_new_tokens=20, temperature=1.5, seed=seed))[0]

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1


def test_drawing_from_one_token_is_greedy(model):
    ids = decode(model, PROMPT, options=GenerationOptions(max_new_tokens=20, temperature=1.0, top_k=1))[0]
    assert ids == decode(model, PROMPT)[0]
    ids = decode(model, PROMPT, options=GenerationOptions(max_new_tokens=20, temperature=1.0, top_p=1e-6))[0]
    assert ids == decode(model, PROMPT)[0]


def test_draws_follow_the_probabilities():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    chooser = TokenChooser(GenerationOptions(temperature=1.0, top_p=0.9, seed=0))
    counts = torch.bincount(torch.tensor([chooser.choose(logits, []) for _ in range(4000)]), minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95, atol=0.03, rtol=0)


def test_repetition_penalty_counts_the_answer_only():
    chooser = TokenChooser(GenerationOptions(repetition_penalty=2.0))
    logits = torch.tensor([2.0, 1.5, 0.1])
    assert chooser.choose(logits, []) == 0
    assert chooser.choose(logits, [0]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a red circle moves to the left, then stops at 2.0 s.",
        "größe 🙂 and 日本語のテキスト, mixed",
        "日本語だけ",
        "two  blanks\nand a line",
        "👩‍👩‍👧 one family",
        "x",
        "",
    ],
)
def test_words_come_whole_and_join_to_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    words = WordStream(tokenizer)
    pieces = [piece for piece in [*(words.put(i) for i in ids), words.finish()] if piece]
    assert "".join(pieces) == words.text == text.strip()
    assert not any("\ufffd" in piece for piece in pieces)
    if text.isascii():
        assert all(piece.split() for piece in pieces)
        assert sum(len(piece.split()) for piece in pieces) == len(text.split()), "a word was cut in two"
    if "日" in text:
        assert len(pieces) > 4, "script without spaces must not wait for a space"


def test_words_come_as_soon_as_the_next_begins(tokenizer):
    words = WordStream(tokenizer)
    ids = tokenizer("red circle moves", add_special_tokens=False)["input_ids"]
    so_far = []
    for i, token_id in enumerate(ids):
        so_far.append(words.put(token_id))
        decoded = tokenizer.decode(ids[: i + 1])
        assert len(decoded) - len(words.text) <= len(decoded.split()[-1]) + 1
    assert words.finish() == " moves"


def test_bytes_that_are_no_character_are_given_at_the_end_only(tokenizer):
    ids = tokenizer("a é", add_special_tokens=False)["input_ids"][:-1]
    words = WordStream(tokenizer)
    assert "\ufffd" not in "".join(words.put(i) for i in ids)


def test_logits_that_are_no_numbers_are_an_error():
    logits = torch.tensor([0.0, math.nan, 1.0])
    for options in (GenerationOptions(), GenerationOptions(temperature=1.0)):
        with pytest.raises(ChatError, match="weights are damaged") as caught:
            TokenChooser(options).choose(logits, [])
        assert "\n" not in str(caught.value)
