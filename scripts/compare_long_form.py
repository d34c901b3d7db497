"""Whole videos from paragraphs: `tiny_lf_vila` beside the average of a dual encoder's vectors of short clips.

A video is scenes of our world behind each other, none of them ever trained on; a paragraph has a sentence of each. Both
galleries are searched with every paragraph:

    different   each video has scenes of its own
    reordered   each set of scenes is there twice, in two orders

What is compared (the first three are one model, read in three ways):

    whole       LF-VILA's vectors of video and paragraph
    moments     its vectors of clips and sentences, matched in order (`align`): the mean over the sentences
    both        the sum of these
    pieces      the same model without what makes it long: each window of four frames a video of its own, each sentence
                a paragraph of its own, averaged
    average     a dual encoder (LaViLa) on windows of the same length, averaged, with ``--dual-encoder FOLDER``
    ... in order   the vectors of these windows, matched in order instead of averaged

    python scripts/compare_long_form.py [--model NAME|FOLDER] [--dual-encoder NAME|FOLDER] [--scenes N ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from videollm.clips import Clip, Frames
from videollm.data.stories import TEST_STORIES, Story, draw_story
from videollm.evaluation.alignment import alignment_scores
from videollm.evaluation.retrieval import retrieval_scores
from videollm.models.lf_vila import align, align_seconds, embed_paragraph, embed_video

RATE_HZ = 1.0
WINDOW = 4
"""Frames of a window that is embedded alone."""
FRAMES_PER_CLIP = 1
DRAWN_PX = 64

Rows = tuple[torch.Tensor, list[tuple[float, float]]]


class LongForm:
    """LF-VILA, read as it is meant to be."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    def video(self, frames: Frames) -> tuple[torch.Tensor, Rows]:
        seen = embed_video(self.model, self.processor, frames, FRAMES_PER_CLIP)
        return seen.vector, (seen.clip_vectors, list(seen.clip_seconds))

    def paragraph(self, sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        said = embed_paragraph(self.model, self.processor, sentences)
        return said.vector, said.sentence_vectors


class Averaged:
    """Vectors of windows and sentences by themselves, and their averages."""

    def __init__(self, clip: Callable[[Frames], torch.Tensor], words: Callable[[str], torch.Tensor]) -> None:
        self.clip, self.words = clip, words

    def video(self, frames: Frames) -> tuple[torch.Tensor, Rows]:
        starts = range(0, max(len(frames) - WINDOW // 2, 1), WINDOW)
        parts = [_part(frames, start, min(start + WINDOW, len(frames))) for start in starts]
        vectors = torch.stack([self.clip(part) for part in parts])
        begins = [float(part.seconds[0]) for part in parts]
        spans = list(zip(begins, [*begins[1:], frames.duration_seconds], strict=True))
        return _unit(vectors.mean(dim=0)), (vectors, spans)

    def paragraph(self, sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = torch.stack([self.words(sentence) for sentence in sentences])
        return _unit(vectors.mean(dim=0)), vectors


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vector, dim=-1)


def _part(frames: Frames, start: int, end: int) -> Frames:
    return Frames(frames.pixels[start:end], frames.seconds[start:end], frames.duration_seconds)


def pieces(model: Any, processor: Any) -> Averaged:
    return Averaged(
        lambda frames: embed_video(model, processor, frames).vector,
        lambda sentence: embed_paragraph(model, processor, [sentence]).vector,
    )


def dual_encoder(name_or_folder: str) -> Averaged:
    from videollm.models import hub
    from videollm.moments.embed import load_sight_encoder

    encoder = load_sight_encoder(hub.EMBEDDED.get(name_or_folder, Path(name_or_folder)))

    def clip(frames: Frames) -> torch.Tensor:
        (row,) = encoder.clips([Clip("film", "video", "", frames.duration_seconds, frames)])
        assert row is not None
        return _unit(torch.from_numpy(row))

    return Averaged(clip, lambda sentence: _unit(torch.from_numpy(encoder.words(sentence))))


def in_order(words: torch.Tensor, clips: torch.Tensor) -> float:
    """How well sentences fit runs of clips, in order: the mean similarity of each with its own run."""
    similarity = (words @ clips.T).numpy()
    if len(words) > len(clips):
        similarity = np.repeat(similarity, -(-len(words) // len(clips)), axis=1)
    spans = align(similarity)
    return float(np.mean([row[first : last + 1].mean() for row, (first, last) in zip(similarity, spans, strict=True)]))


def scores(way: LongForm | Averaged, stories: list[Story], names: tuple[str, str, str]) -> dict[str, dict[str, float]]:
    """Retrieval by whole vectors, by moments in order and by both; and how well sentences were found in their video."""
    seen = [way.video(story.frames(np.arange(0, story.duration_seconds, 1 / RATE_HZ), DRAWN_PX)) for story in stories]
    said = [way.paragraph(list(story.sentences)) for story in stories]
    whole = torch.stack([vector for vector, _ in said]) @ torch.stack([vector for vector, _ in seen]).T
    moments = np.array([[in_order(words, clips) for _, (clips, _) in seen] for _, words in said])
    found, true = [], []
    for (_, words), (_, (clips, spans)), story in zip(said, seen, stories, strict=True):
        found += align_seconds((words @ clips.T).numpy(), spans)
        true += list(story.spans_seconds)
    by = dict(zip(names, (whole.numpy(), moments, whole.numpy() + moments), strict=True))
    ways = {name: retrieval_scores(similarity, (1, 5, 10)) for name, similarity in by.items() if name}
    ways[names[1]] |= {"mIoU": alignment_scores(found, true)["mIoU"]}
    return ways


def galleries(count: int, scenes: int) -> dict[str, list[Story]]:
    stories = [draw_story(TEST_STORIES + 1_000 * scenes + number, scenes) for number in range(count)]
    rng = np.random.default_rng(scenes)
    twice: list[Story] = []
    for story in stories[: count // 2]:
        order = rng.permutation(scenes)
        while (order == np.arange(scenes)).all():
            order = rng.permutation(scenes)
        twice += [story, story.reordered(order.tolist())]
    return {"different": stories, "reordered": twice}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny_lf_vila")
    parser.add_argument("--dual-encoder")
    parser.add_argument("--stories", type=int, default=200)
    parser.add_argument("--scenes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    from videollm.models import hub
    from videollm.models.lf_vila import LfVilaForPreTraining, LfVilaProcessor

    folder = hub.EMBEDDED.get(options.model, Path(options.model))
    model = LfVilaForPreTraining.from_pretrained(folder, dtype=torch.float32).eval()
    processor = LfVilaProcessor.from_pretrained(folder)
    ways: list[tuple[Any, tuple[str, str, str]]] = [
        (LongForm(model, processor), ("whole", "moments", "both")),
        (pieces(model, processor), ("pieces", "pieces in order", "")),
    ]
    if options.dual_encoder:
        ways.append((dual_encoder(options.dual_encoder), ("average", "average in order", "")))
    results: dict[str, Any] = {}
    for scenes in options.scenes:
        for gallery, stories in galleries(options.stories, scenes).items():
            print(f"{len(stories)} videos of {scenes} scenes, {gallery}", flush=True)
            for way, names in ways:
                for name, found in scores(way, stories, names).items():
                    results[f"{scenes} {gallery} {name}"] = found
                    cells = "  ".join(f"{key} {value:.3f}" for key, value in found.items())
                    print(f"  {name:17s} {cells}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
