"""Does the loss that orders moments in time (MTC) order them? LF-VILA trained with it and without, from the same eye.

A video is four scenes of our world behind each other, a paragraph one sentence of each. Every way learns from the same
batches, in which each set of scenes is shown in two orders, so that the loss of whole videos, too, is given reasons to
learn the order. The weights that the eye begins with know single scenes, as Swin's know single pictures, and are the
same for all; everything else begins at random (with ``--cold`` the eye, too).

    without     the loss of whole videos alone
    published   MTC as published: 2 of 4 sentences are compared with 2 of 4 clips, and the one nearer in time counts as
                right, though it shows another scene in half of the cases
    all         every sentence is compared with every clip

Of scenes never shown, a video is then compared with the paragraphs of all 24 orders of its sentences:

    whole       by the vectors of video and paragraph
    moments     by those of clips and sentences that MTC trains, the first with the first, and so on
    clips       the same by what the loss of whole videos trains: clips of the encoder's last features, in the space of
                whole videos, and each sentence as a paragraph of its own; what one can do without MTC
    pieces      the same, each clip seen alone as a video of its own
    IoU         of an eight-scene video, the sentences of four are aligned with its clips: mean temporal overlap

    python scripts/compare_mtc.py [--steps N] [--seeds N] [--eye FILE | --cold] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from videollm.data.stories import TEST_STORIES, StorySamples, clip_seconds, draw_story
from videollm.evaluation.alignment import alignment_scores
from videollm.evaluation.retrieval import ranks
from videollm.models.lf_vila import LfVilaForPreTraining, LfVilaProcessor, align
from videollm.models.lf_vila.modeling_lf_vila import clip_means
from videollm.training.tiny_lf_vila import build_tiny_lf_vila, learn, make_eye

WAYS: dict[str, dict[str, Any]] = {
    "without": {"mtc_weight": 0.0},
    "published": {"mtc_weight": 0.25},
    "all": {"mtc_weight": 0.25, "mtc_anchors": 4, "mtc_candidates": 4},
}
KINDS = ("one",)
SCENES, FRAMES = 4, 4
ORDERS = list(itertools.permutations(range(SCENES)))
TWINS, SETS, TEST_SETS = 8, 3_000, 100
RATE, COLD_RATE = 1.5e-3, 1e-3


def train(way: str, seed: int, steps: int, eye: Path | None) -> tuple[LfVilaForPreTraining, LfVilaProcessor]:
    model, processor = build_tiny_lf_vila(seed)
    for name, value in WAYS[way].items():
        setattr(model.config, name, value)
    if eye is not None:
        model.video_encoder.load_state_dict(load_file(eye))
    samples = StorySamples(processor, SETS, twins=TWINS, kinds=KINDS)
    first = seed * steps * 2 * TWINS
    torch.manual_seed(seed)  # of the draws of MTC
    told: dict[str, float] = defaultdict(float)

    def loss(step: int) -> torch.Tensor:
        items = [samples[first + step * 2 * TWINS + place] for place in range(2 * TWINS)]
        pixels = torch.stack([item["pixel_values"] for item in items])
        out = model(pixels, **processor.encode_sentences([item["sentences"] for item in items]))
        told["whole videos"] += out.global_loss.item() / 100
        told["moments"] += out.mtc_loss.item() / 100
        if step % 100 == 99:
            print(f"  {way} {seed} {step + 1}: " + ", ".join(f"{k} {v:.2f}" for k, v in told.items()), flush=True)
            told.clear()
        return out.loss

    learn(list(model.train().parameters()), loss, steps, COLD_RATE if eye is None else RATE)
    return model.eval(), processor


@torch.no_grad()
def test(model: LfVilaForPreTraining, processor: LfVilaProcessor) -> dict[str, float]:
    images: Any = processor.image_processor
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    true: list[tuple[float, float]] = []
    for number in range(TEST_SETS):
        story = draw_story(TEST_STORIES + number, 2 * SCENES, KINDS)
        pixels = images(story.frames(clip_seconds(story, FRAMES, 0.5), max(images.size)).pixels)
        words = processor.encode_sentences([[sentence] for sentence in story.sentences])
        ids, mask = words["input_ids"], words["attention_mask"]

        states = model.text_encoder.read_sentences(ids, mask)
        alone = model.paragraph_vectors(model.text_encoder.read_paragraph(states, mask)[0])
        sentences = model.sentence_vectors(states)[:, 0]
        four = pixels[: SCENES * FRAMES]
        video = model.encode_video(four[None], local=True)
        assert video.local_tokens is not None
        pieces = model.video_vectors(model.encode_video(four.unflatten(0, (SCENES, FRAMES))).tokens)
        pairs = {
            "moments": sentences[:SCENES] @ model.clip_vectors(video.local_tokens, SCENES)[0].T,
            "clips": alone[:SCENES] @ in_space_of_videos(model, video.tokens, SCENES).T,
            "pieces": alone[:SCENES] @ pieces.T,
        }
        similarity = {
            way: torch.stack([pair[list(order), range(SCENES)].mean() for order in ORDERS])
            for way, pair in pairs.items()
        }
        said, of_said = (torch.stack([value[list(order), 0] for order in ORDERS]) for value in (states, mask))
        paragraphs = model.paragraph_vectors(model.text_encoder.read_paragraph(said, of_said)[0])
        similarity["whole"] = paragraphs @ model.video_vectors(video.tokens)[0]
        for way, each in similarity.items():
            found[way].append(float(ranks(each[None].numpy())[0] <= 1))

        told = np.sort(rng.choice(2 * SCENES, SCENES, replace=False))
        long = model.encode_video(pixels[None], local=True)
        assert long.local_tokens is not None
        clips = model.clip_vectors(long.local_tokens, 2 * SCENES)[0]
        last = in_space_of_videos(model, long.tokens, 2 * SCENES)
        for way, each in (("moments", sentences[told] @ clips.T), ("clips", alone[told] @ last.T)):
            spans[way] += [(first, end + 1) for first, end in align(each.numpy())]
        true += [(int(place), int(place) + 1) for place in told]
    means = {way: statistics.mean(found[way]) for way in ("whole", "moments", "clips", "pieces")}
    return means | {f"IoU {way}": alignment_scores(each, true)["mIoU"] for way, each in spans.items()}


def in_space_of_videos(model: LfVilaForPreTraining, tokens: torch.Tensor, clips: int) -> torch.Tensor:
    """Clips of one video by its last features: float ``(K, D)``, unit vectors."""
    return torch.nn.functional.normalize(model.video_global_projection(clip_means(tokens, clips)[0]), dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--eye", type=Path, default=Path("runs/tiny_lf_vila/eye.safetensors"))
    parser.add_argument("--cold", action="store_true", help="begin with random weights throughout")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    eye = None if options.cold else options.eye
    if eye is not None and not eye.is_file():
        make_eye(eye)
    results: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    if options.out and options.out.is_file():  # a comparison that was interrupted, or is to have another way beside it
        kept = json.loads(options.out.read_text())
        if (kept.pop("steps"), kept.pop("cold", False)) != (options.steps, options.cold):
            parser.error(f"{options.out} is of another number of steps, or began otherwise; name another file")
        results = kept | {way: kept.get(way, []) for way in options.ways}
    ways: list[str] = options.ways
    for seed, way in [(seed, way) for seed in range(options.seeds) for way in ways]:
        if seed < len(results[way]):
            continue
        start = time.process_time()
        results[way].append(test(*train(way, seed, options.steps, eye)))
        scores = ", ".join(f"{name} {value:.3f}" for name, value in results[way][-1].items())
        print(f"seed {seed} {way}: {scores} ({time.process_time() - start:.0f} s of processor)", flush=True)
        if options.out:
            options.out.write_text(
                json.dumps({"steps": options.steps, "cold": options.cold, **results}, indent=1) + "\n"
            )
    print(f"{options.steps} steps, {options.seeds} seeds; chance of the right order {1 / len(ORDERS):.3f}")
    for way, runs in results.items():
        cells = (
            f"{name} {statistics.mean(run[name] for run in runs):.3f} +- "
            f"{statistics.stdev([run[name] for run in runs]) if len(runs) > 1 else 0.0:.3f}"
            for name in runs[0]
        )
        print(f"{way:10s} {', '.join(cells)}")


if __name__ == "__main__":
    main()
