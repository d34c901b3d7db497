"""Caption cleaning, and each published slip beside what we do."""

import math

import pytest

from videollm.data.captions import ALIGNMENT_REQUESTS, MAX_WORDS, clean_caption


@pytest.mark.parametrize(
    ("caption", "published", "ours"),
    [
        ("A Dog.", "a dog", "a dog"),
        (
            "Hello,   WORLD!! (this) is: a *test*; ~ #1",
            "hello, world this is a test 1",
            "hello, world this is a test 1",
        ),
        ("at 3.5 m, 10:30. Then .5", "at 3 5 m, 10 30 then 5", "at 3.5 m, 10:30 then 5"),
        ("tabs\tand\nlines  inside\n", "tabs\tand\nlines inside", "tabs and lines inside"),
        ("\tends\t", "\tends\t", "ends"),
        ("\nbegins", "\nbegins", "begins"),
        ("中文 caption: ok", "中文 caption ok", "中文 caption ok"),
        ("", "", ""),
        ("...", "", ""),
    ],
)
def test_signs_and_blanks(caption: str, published: str, ours: str) -> None:
    assert clean_caption(caption, as_published=True) == published
    assert clean_caption(caption) == ours


def test_long_captions_are_cut() -> None:
    words = [f"w{index}" for index in range(MAX_WORDS + 9)]
    for as_published in (True, False):
        assert clean_caption(" ".join(words), as_published=as_published).split() == words[:MAX_WORDS]
        assert clean_caption("one two three", max_words=2, as_published=as_published) == "one two"
    joined = "\n".join(words)
    assert clean_caption(joined, as_published=True) == joined
    assert clean_caption(joined).split() == words[:MAX_WORDS]


def test_no_text() -> None:
    with pytest.raises(ValueError, match="a caption must be text, found nan; leave the sample out"):
        clean_caption(math.nan)  # pyright: ignore[reportArgumentType]


def test_requests_are_sentences() -> None:
    assert all(request[0].isupper() and request[-1] in ".?" for request in ALIGNMENT_REQUESTS)
