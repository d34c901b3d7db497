"""Does the loss that orders moments in time (MTC) order them? LF-VILA trained with it and without, three seeds of each.

A video is four scenes of our world behind each other, a paragraph one sentence of each. Both ways learn from the same
batches: each set of scenes is shown twice, in two orders, so that the loss of whole videos, too, is given reasons to
learn the order. Then, of scenes never shown, a video is compared with the paragraphs of all 24 orders of its sentences:

    whole     by the vectors of video and paragraph
    moments   by those of clips and sentences, the first with the first, and so on; without MTC nothing trains them
    pieces    the same, each clip embedded as a video and each sentence as a paragraph of its own: what one can do
              without MTC
    overlap   of an eight-scene video, the sentences of four are aligned with its clips, by moments: mean temporal IoU
    overlap of pieces

    python scripts/compare_mtc.py [--steps N] [--seeds N] [--out FILE.json]
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from transformers.models.bert.tokenization_bert import BertTokenizer

from videollm.data.dialogue import caption, measure
from videollm.data.drawing import render
from videollm.data.world import draw_scene
from videollm.evaluation.alignment import alignment_scores
from videollm.evaluation.retrieval import ranks
from videollm.models.lf_vila import LfVilaConfig, LfVilaForPreTraining, LfVilaImageProcessor, LfVilaProcessor, align

SCENES, FRAMES = 4, 4
ORDERS = list(itertools.permutations(range(SCENES)))
SIZE = (24, 40)
BATCH_SETS, TRAIN_SCENES, TEST_SCENES, TEST_SETS = 8, 400, 160, 80


def draw(first_seed: int, count: int) -> tuple[torch.Tensor, list[str]]:
    """Scenes with one thing: float ``(count, FRAMES, 3, H, W)``, and what is to be seen."""
    images = LfVilaImageProcessor(size=SIZE)
    pixels, captions = [], []
    for seed in range(first_seed, first_seed + count):
        scene = draw_scene(seed, "one")
        frames = render(scene, np.linspace(0, 0.95 * scene.duration_seconds, FRAMES), max(SIZE))
        pixels.append(images(frames))
        captions.append(caption(scene, measure(frames)))
    return torch.stack(pixels), captions


def tokenizer_of(captions: list[str]) -> BertTokenizer:
    words = sorted({word.strip(".,").lower() for text in captions for word in text.split()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words]) + "\n")
        return BertTokenizer(vocab=str(path), do_lower_case=True)


def small_model(vocabulary: int, mtc_weight: float) -> LfVilaForPreTraining:
    return LfVilaForPreTraining(
        LfVilaConfig(
            video_config={
                "image_size": SIZE,
                "patch_size": [4, 4],
                "embed_dim": 24,
                "depths": [1, 2, 2],
                "num_heads": [1, 2, 4],
                "window_sizes": [[2, 3, 5], [4, 3, 5], [16, 3, 5]],
                "merge_after": [0, 1],
                "local_window": 4,
                "drop_path_rate": 0.0,
            },
            text_config={
                "hidden_size": 96,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 192,
                "vocab_size": vocabulary,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            sentence_layers=2,
            paragraph_layers=2,
            num_frames=SCENES * FRAMES,
            num_clips=SCENES,
            max_sentence_tokens=16,
            mtc_weight=mtc_weight,
        )
    )


def train(
    seed: int, mtc_weight: float, steps: int, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, size: int
):
    torch.manual_seed(seed)
    model = small_model(size, mtc_weight).train()
    rng = np.random.default_rng(seed)  # both ways see the same batches
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        sets = np.stack([rng.choice(len(pixels), SCENES, replace=False) for _ in range(BATCH_SETS)])
        other = np.stack([row[rng.permutation(SCENES)] for row in sets])
        batch = torch.from_numpy(np.concatenate([sets, other]))  # so far apart that MTC's negatives are other scenes
        out = model(pixels[batch].flatten(1, 2), ids[batch], mask[batch])
        out.loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            told = f"whole videos {out.global_loss.item():.2f}, moments {out.mtc_loss.item():.2f}"
            print(f"  seed {seed} weight {mtc_weight} step {step + 1}: {told}", flush=True)
    return model.eval()


@torch.no_grad()
def test(model: LfVilaForPreTraining, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    spans: dict[str, list[tuple[float, float]]] = {"overlap": [], "overlap of pieces": []}
    true: list[tuple[float, float]] = []
    for _ in range(TEST_SETS):
        scenes = rng.choice(len(pixels), 2 * SCENES, replace=False)
        four = torch.from_numpy(scenes[:SCENES])
        video = model.encode_video(pixels[four].flatten(0, 1)[None], local=True)
        said = model.text_encoder.read_sentences(ids[four][None], mask[four][None])
        paragraphs = torch.stack([said[0, list(order)] for order in ORDERS])
        masks = torch.stack([mask[four][list(order)] for order in ORDERS])
        whole = model.paragraph_vectors(model.text_encoder.read_paragraph(paragraphs, masks)[0])
        whole = whole @ model.video_vectors(video.tokens)[0]
        pairs = model.sentence_vectors(said)[0] @ model.clip_vectors(video.local_tokens, SCENES)[0].T
        moments = torch.stack([pairs[list(order), range(SCENES)].sum() for order in ORDERS])
        pairs = alone(model, pixels[four], ids[four], mask[four])
        pieces = torch.stack([pairs[list(order), range(SCENES)].sum() for order in ORDERS])
        for name, similarity in (("whole", whole), ("moments", moments), ("pieces", pieces)):
            rank = float(ranks(similarity[None].numpy())[0])
            found[name].append(float(rank <= 1))
            found[f"{name} rank"].append(rank)
        long = model.encode_video(pixels[torch.from_numpy(scenes)].flatten(0, 1)[None], local=True)
        told = np.sort(rng.choice(2 * SCENES, SCENES, replace=False))
        words = model.text_encoder.read_sentences(ids[scenes[told]][None], mask[scenes[told]][None])
        clips = model.clip_vectors(long.local_tokens, 2 * SCENES)[0]
        by_moments = model.sentence_vectors(words)[0] @ clips.T
        by_pieces = alone(model, pixels[scenes], ids[scenes[told]], mask[scenes[told]])
        for name, similarity in (("overlap", by_moments), ("overlap of pieces", by_pieces)):
            spans[name] += [(first, last + 1) for first, last in align(similarity.numpy())]
        true += [(int(place), int(place) + 1) for place in told]
    means = {name: statistics.mean(values) for name, values in found.items()}
    return means | {name: alignment_scores(each, true)["mIoU"] for name, each in spans.items()}


def alone(model: LfVilaForPreTraining, clips: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sentences against clips, each a paragraph and a video of its own: float ``(sentences, clips)``."""
    states = model.text_encoder.read_sentences(ids[:, None], mask[:, None])
    paragraphs = model.paragraph_vectors(model.text_encoder.read_paragraph(states, mask[:, None])[0])
    return paragraphs @ model.video_vectors(model.encode_video(clips).tokens).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pixels, captions = draw(0, TRAIN_SCENES)
    unseen, unseen_captions = draw(10**6, TEST_SCENES)
    tokenizer = tokenizer_of(captions)
    processor = LfVilaProcessor(LfVilaImageProcessor(size=SIZE), tokenizer, SCENES, 16, SCENES * FRAMES)
    encoded = [processor.encode_sentences([[text] for text in texts]) for texts in (captions, unseen_captions)]
    (ids, mask), (test_ids, test_mask) = (
        (words["input_ids"][:, 0], words["attention_mask"][:, 0]) for words in encoded
    )
    results: dict[str, list[dict[str, float]]] = {"with MTC": [], "without": []}
    for seed in range(options.seeds):
        for name, weight in (("with MTC", 0.25), ("without", 0.0)):
            start = time.process_time()
            model = train(seed, weight, options.steps, pixels, ids, mask, len(tokenizer))
            results[name].append(test(model, unseen, test_ids, test_mask))
            scores = ", ".join(f"{key} {value:.3f}" for key, value in results[name][-1].items())
            print(f"seed {seed} {name}: {scores} ({time.process_time() - start:.0f} s of processor)", flush=True)
    print(f"{options.steps} steps; chance of the right order {1 / len(ORDERS):.3f}, of its rank 12.5")
    for name, runs in results.items():
        cells = (
            f"{key} {statistics.mean(run[key] for run in runs):.3f} +- "
            f"{statistics.stdev([run[key] for run in runs]) if len(runs) > 1 else 0.0:.3f}"
            for key in runs[0]
        )
        print(f"{name:9s} {', '.join(cells)}")
    if options.out:
        options.out.write_text(json.dumps({"steps": options.steps, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
