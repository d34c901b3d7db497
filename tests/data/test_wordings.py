"""The wordings: sizes, slots, separation of train from test, and of outside questions from those of the world."""

import itertools
import re
import string

import pytest

from videollm.data import wordings
from videollm.data.wordings import (
    OUTSIDE_TEST,
    OUTSIDE_TRAIN,
    SLOTS,
    UNKNOWN_TEST,
    UNKNOWN_TRAIN,
    WORDINGS,
    article,
    fill,
)

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "gray", "grey", "brown")
SOUNDS = ("hum", "beeps", "noise", "rising tone", "falling tone", "clicks", "music", "speech")
BARE_SOUNDS = ("beeps", "clicks", "noise", "music", "speech")
NOUN_PHRASES = (*SHAPES, "thing", *(f"{c} {s}" for c in COLOURS for s in (*SHAPES, "thing")))
VALUES = {
    "shape": SHAPES,
    "colour": COLOURS,
    "thing": tuple(f"the {noun}" for noun in NOUN_PHRASES),
    "a_thing": tuple(f"{article(noun)} {noun}" for noun in NOUN_PHRASES),
    "sound": tuple(f"the {sound}" for sound in SOUNDS),
    "a_sound": tuple(sound if sound in BARE_SOUNDS else f"a {sound}" for sound in SOUNDS),
    "seconds": tuple(f"{tenths / 10:.1f}" for tenths in range(100)),
    "a_word": tuple(f"{article(noun)} {noun}" for noun in (*UNKNOWN_TRAIN, *UNKNOWN_TEST)),
}
EVERY = [
    (kind, part, text)
    for kind, both in WORDINGS.items()
    for part, texts in (("train", both.train), ("test", both.test))
    for text in texts
]


def fields(text: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def plain(text: str) -> str:
    """Without punctuation, with one space between words and every slot named alike."""
    return " ".join(re.sub(r"[^a-z0-9@' ]", " ", re.sub(r"\{\w+\}", " @ ", text)).split())


@pytest.mark.parametrize("kind", list(SLOTS))
def test_sizes_slots_and_spelling(kind: str) -> None:
    both = WORDINGS[kind]
    assert 24 <= len(both.train) <= 36
    assert 6 <= len(both.test) <= 8
    for text in (*both.train, *both.test):
        assert fields(text) == SLOTS[kind], text
        assert text.isascii() and text == text.lower() == text.strip() and "  " not in text, text


def test_types_match_slots() -> None:
    assert set(WORDINGS) == set(SLOTS)
    assert "outside" not in WORDINGS


def test_no_wording_twice_and_no_test_wording_trained() -> None:
    texts = [text for _, _, text in EVERY]
    assert len(texts) == len(set(texts))
    trained = {(kind, plain(text)) for kind, part, text in EVERY if part == "train"}
    polite = {plain(text) for text in (*wordings.POLITE_PREFIXES, *wordings.POLITE_SUFFIXES)}
    for kind, part, text in EVERY:
        if part == "train":
            continue
        stripped = {plain(text)}
        for word in polite:
            stripped |= {s.removeprefix(f"{word} ").removesuffix(f" {word}") for s in set(stripped)}
        assert not any((kind, candidate) in trained for candidate in stripped), text


def test_every_question_has_one_type() -> None:
    owner: dict[str, str] = {}
    for kind, _, text in EVERY:
        for values in itertools.product(*(VALUES[name] for name in SLOTS[kind])):
            question = plain(fill(text, **dict(zip(SLOTS[kind], values, strict=True))))
            assert owner.setdefault(question, kind) == kind, question


def test_test_wordings_are_built_of_trained_words() -> None:
    trained = {word for _, part, text in EVERY if part == "train" for word in plain(text).split()}
    unseen = {word for _, part, text in EVERY if part == "test" for word in plain(text).split()} - trained
    assert not unseen


def test_outside_sizes_spelling_and_separation() -> None:
    assert len(set(OUTSIDE_TRAIN)) == len(OUTSIDE_TRAIN) >= 700
    assert len(set(OUTSIDE_TEST)) == len(OUTSIDE_TEST) >= 240
    assert len(wordings._TRAIN_TEMPLATES) >= 60 and len(wordings._TEST_TEMPLATES) >= 30
    assert len(set(wordings._TRAIN_WRITTEN)) >= 100 and len(set(wordings._TEST_WRITTEN)) >= 60
    assert not {plain(text) for text in OUTSIDE_TRAIN} & {plain(text) for text in OUTSIDE_TEST}
    assert not {plain(t) for t in wordings._TRAIN_TEMPLATES} & {plain(t) for t in wordings._TEST_TEMPLATES}
    trained = {entry for entries in wordings._TRAIN_FILLERS.values() for entry in entries}
    for name, entries in wordings._TEST_FILLERS.items():
        assert not set(entries) & trained, name
    for text in (*OUTSIDE_TRAIN, *OUTSIDE_TEST):
        assert text.isascii() and text == text.lower() == text.strip() and "{" not in text, text


def test_no_outside_question_is_one_of_the_world() -> None:
    outside = {plain(text) for text in (*OUTSIDE_TRAIN, *OUTSIDE_TEST)}
    for kind, _, text in EVERY:
        for values in itertools.product(*(VALUES[name] for name in SLOTS[kind])):
            question = fill(text, **dict(zip(SLOTS[kind], values, strict=True)))
            assert plain(question) not in outside, question


def test_unknown_nouns() -> None:
    assert len(set(UNKNOWN_TRAIN)) == len(UNKNOWN_TRAIN) >= 500
    assert len(set(UNKNOWN_TEST)) == len(UNKNOWN_TEST) >= 150
    assert not set(UNKNOWN_TRAIN) & set(UNKNOWN_TEST)
    world = {word for phrase in (*SHAPES, *COLOURS, *SOUNDS) for word in phrase.split()}
    world |= {"sound", "tone", "beep", "click", "voice", "song", "disc", "disk", "ball", "box", "ring", "plus",
              "dot", "violet", "thing", "shape", "object", "colour", "color", "cut", "scene", "camera", "background",
              "picture", "video", "clip", "whistle", "buzz", "hiss", "tune", "melody", "rectangle", "rose"}  # fmt: skip
    for noun in (*UNKNOWN_TRAIN, *UNKNOWN_TEST):
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", noun), noun
        assert not set(noun.split()) & world, noun


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("orange star", "an"), ("uncle", "an"), ("unicorn", "a"), ("umbrella", "an"), ("hourglass", "an"), ("house", "a"),
     ("university", "a"), ("ukulele", "a"), ("axe", "an"), ("urn", "an"), ("user", "a"), ("union", "a")],
)  # fmt: skip
def test_article(noun: str, expected: str) -> None:
    assert article(noun) == expected


@pytest.mark.parametrize(
    ("wording", "slots", "expected"),
    [
        ("how many {sound} are there?", {"sound": "the beeps"}, "how many beeps are there?"),
        ("when does {sound} start?", {"sound": "the clicks"}, "when do the clicks start?"),
        ("when does {sound} start?", {"sound": "the hum"}, "when does the hum start?"),
        ("tell me when {sound} starts.", {"sound": "the beeps"}, "tell me when the beeps start."),
        ("is there {a_sound}?", {"a_sound": "clicks"}, "are there clicks?"),
        ("is there {a_sound}?", {"a_sound": "noise"}, "is there noise?"),
        ("once {sound} is over, what then?", {"sound": "the beeps"}, "once the beeps are over, what then?"),
    ],
)
def test_fill_mends_plural_sounds(wording: str, slots: dict[str, str], expected: str) -> None:
    assert fill(wording, **slots) == expected


def test_fill_names_a_missing_slot() -> None:
    with pytest.raises(KeyError):
        fill("how does {thing} move?")
