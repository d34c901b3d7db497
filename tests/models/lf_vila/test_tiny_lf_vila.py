"""The embedded LF-VILA finds films of the world that it has never seen, and the scenes in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from videollm.data.stories import TEST_STORIES, draw_story
from videollm.evaluation.alignment import alignment_scores
from videollm.evaluation.retrieval import retrieval_scores
from videollm.models import families, hub
from videollm.models.lf_vila import LfVilaForPreTraining, align_seconds, embed_paragraph, embed_video


def test_films_and_their_scenes_are_found() -> None:
    model, processor = families.load("tiny_lf_vila", LfVilaForPreTraining, device="cpu")
    stories = [draw_story(TEST_STORIES + 500_000 + number) for number in range(12)]
    seen = [
        embed_video(model, processor, story.frames(np.arange(0, story.duration_seconds, 1.0), 64), frames_per_clip=1)
        for story in stories
    ]
    said = [embed_paragraph(model, processor, list(story.sentences)) for story in stories]
    similarity = torch.stack([one.vector for one in said]) @ torch.stack([one.vector for one in seen]).T
    scores = retrieval_scores(similarity.numpy(), (1, 5))
    assert scores["R1"] >= 0.5 and scores["R5"] >= 0.9
    found = [
        span
        for words, film in zip(said, seen, strict=True)
        for span in align_seconds((words.sentence_vectors @ film.clip_vectors.T).numpy(), film.clip_seconds)
    ]
    true = [span for story in stories for span in story.spans_seconds]
    assert alignment_scores(found, true)["mIoU"] >= 0.5


def test_it_is_small_and_says_what_it_is() -> None:
    folder: Path = hub.EMBEDDED["tiny_lf_vila"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6
    assert "# tiny_lf_vila" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
