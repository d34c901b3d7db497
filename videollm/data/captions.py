"""Captions as the published models learned them: cleaning, and the requests that stand before them.

Source: the published data loaders of Video-LLaMA, which are those of BLIP.
"""

from __future__ import annotations

import re

MAX_WORDS = 50
"""Longer captions are cut after so many words."""

ALIGNMENT_REQUESTS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)
"""What the user says before a caption in the second stage, one of them drawn at random for a batch."""

_SIGNS = re.compile(r"[.!\"()*#:;~]")
_SIGNS_OUTSIDE_NUMBERS = re.compile(r"(?<!\d)[.:](?=\d)|[.:](?!\d)|[!\"()*#;~]")


def clean_caption(caption: str, max_words: int = MAX_WORDS, as_published: bool = False) -> str:
    """A web caption in lower case, without signs and superfluous blanks, of at most ``max_words`` words.

    Captions of pictures (CC3M, MiniGPT-4) were not cleaned but used as they are.

    Args:
        as_published: reproduce the published slips, each of which changes what is learned:

            * a point or colon within a number is a sign like others: ``3.5`` becomes ``3 5``, ``10:30`` ``10 30``;
            * a single tab or line break stays, only two blanks in a row become one;
            * tabs at the ends, and line breaks at the beginning, stay;
            * words are counted between blanks, so that words joined by a tab or a line break count as one.

    Raises:
        ValueError: for what is no text, such as the NaN of an empty cell, on which the published loader crashed.
    """
    if not isinstance(caption, str):
        raise ValueError(f"a caption must be text, found {caption!r}; leave the sample out")
    if not as_published:
        return " ".join(_SIGNS_OUTSIDE_NUMBERS.sub(" ", caption.lower()).split()[:max_words])
    text = re.sub(r"\s{2,}", " ", _SIGNS.sub(" ", caption.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])
