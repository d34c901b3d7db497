"""The rephraser: a T5 that says a narration in other words.

Source: Zhao et al., "LaViLa" (2022), section 3.2, and the model card of the paraphraser it uses
(ramsrigouthamg/t5-large-paraphraser-diverse-high-quality).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers.models.auto.modeling_auto import AutoModelForSeq2SeqLM
from transformers.models.auto.tokenization_auto import AutoTokenizer

from ...errors import ModelNotFoundError
from .diverse_beams import diverse_beam_search

PROMPT = "paraphrase: {sentence} </s>"
"""The published prompt; the tokenizer adds an end token of its own."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Rephraser:
    """Sentences to other sentences of the same meaning.

    Attributes:
        model: a T5 of the library.
        tokenizer: its.
        prompt: what it is asked, with ``{sentence}`` in it.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt: str = PROMPT) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.prompt = prompt

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:
        """From a folder of a T5 and its tokenizer, as the library saves them.

        Args:
            folder: on this machine.
            options: of the library's ``from_pretrained``.

        Raises:
            ModelNotFoundError: if it holds no such model.
        """
        try:
            own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            model = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True, **own, **options)
            tokenizer = AutoTokenizer.from_pretrained(folder, **own)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelNotFoundError(
                f"no rephraser in {folder} ({reason}); give one that `videollm convert lavila` made"
            ) from error
        prompt = getattr(model.config, "rephraser_prompt", None) or PROMPT
        return cls(model.eval(), tokenizer, prompt)

    def save_pretrained(self, folder: str | Path) -> None:
        """Into a folder that `from_pretrained` takes."""
        self.model.config.rephraser_prompt = self.prompt
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @torch.no_grad()
    def rephrase(
        self,
        sentences: Sequence[str],
        count: int = 3,
        *,
        groups: int = 20,
        diversity_penalty: float = 0.7,
        max_tokens: int = 128,
        punctuation: bool = False,
    ) -> list[list[str]]:
        """Other words for sentences, by diverse beam search.

        Args:
            sentences: any number; give as many at a time as fit in memory, ``groups`` beams each.
            count: how many of each at most.
            groups: of one beam each; 20 as published.
            diversity_penalty: 0.7 as published.
            max_tokens: of a sentence and of a candidate; 128 as published.
            punctuation: keep it; it is taken out as published.

        Returns:
            for each sentence its candidates, the best first: each once, none equal to the sentence itself, but for
            punctuation and capitals. There may be fewer than asked for, or none.

        Raises:
            ValueError: for a count over the number of groups, or below 1.
        """
        if not 1 <= count <= groups:
            raise ValueError(f"{count} candidates of {groups} beams were asked for; ask for 1 to {groups}")
        if not sentences:
            return []
        batch = self.tokenizer(
            [self.prompt.format(sentence=sentence) for sentence in sentences],
            padding=True, truncation=True, max_length=max_tokens, return_tensors="pt",
        ).to(self.model.device)  # fmt: skip
        several = groups > 1
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_length=max_tokens,
            do_sample=False,
            early_stopping=several,
            num_beams=groups,
            num_return_sequences=groups,
            **({"num_beam_groups": groups, "diversity_penalty": diversity_penalty} if several else {}),
            custom_generate=diverse_beam_search if several else None,
        )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            _distinct(sentence, texts[place * groups : (place + 1) * groups], count, punctuation)
            for place, sentence in enumerate(sentences)
        ]


def _distinct(sentence: str, candidates: Sequence[str], count: int, punctuation: bool) -> list[str]:
    seen = {_plain(sentence), ""}
    found: list[str] = []
    for candidate in candidates:
        if _plain(candidate) not in seen:
            seen.add(_plain(candidate))
            found.append(" ".join((candidate if punctuation else candidate.translate(_NO_PUNCTUATION)).split()))
    return found[:count]


def _plain(text: str) -> str:
    return " ".join(text.translate(_NO_PUNCTUATION).lower().split())
