"""The loop of LaViLa's paper at small size, on the drawn world: ``python scripts/lavila_loop.py [--seeds 3]``.

1. Films of the drawn world: a few with what people wrote about them (`videollm.data.world_narrations`), and many that
   nobody wrote about.
2. The eye along time: what the encoders of clips begin with, as the published ones begin with CLIP and TimeSformer; and
   the words: what the narrator's decoder begins with, as the published one is GPT-2.
3. The rephraser learns from pairs of sentences that say the same.
4. The baseline dual encoder and the narrator learn from the people's sentences.
5. The narrator narrates the films that nobody wrote about; the half of what it says that fits best, as the baseline
   sees it, is kept; the rephraser says it, and what people wrote, in other words.
6. The dual encoder learns from all of it: once for each seed, beside one of the same seed and as many steps that
   learns from people's sentences alone. Both find 1,000 held-out clips from their captions: the table that is printed.
   Beside it the better of the last two checkpoints of people's sentences alone, chosen on these same clips.

For choosing settings there are other held-out clips, ``validation.jsonl``. Nothing is chosen with the facts of the
films that nobody wrote about.

``--ship`` lets the narrator learn from people's sentences about the other films, too, and puts all three into
videollm/assets: what is there now is of a longer run with four times as many sentences (its cards say how). It may be
stopped and started again at any time: what is finished is kept, an interrupted run goes on from its newest checkpoint.

Source: Zhao et al., "Learning Video Representations from Large Language Models" (2022), section 3.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from videollm.data.clip_items import ClipFrames, clip_of
from videollm.data.sample import JsonlSamples, Media, Sample, write_samples
from videollm.data.world_narrations import (
    PLAIN_SHARE,
    Captioner,
    Facts,
    Shown,
    draw_facts,
    film,
    film_scenes,
    plain_caption,
    read_facts,
    texts_of_the_world,
)
from videollm.evaluation.retrieval import retrieval_scores
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling, segment_centre_indices
from videollm.media.write import write_video
from videollm.messages import MediaPart, assistant, user
from videollm.models import families
from videollm.models.lavila import LavilaDualEncoder, LavilaNarrator
from videollm.tools.narrators import load_rephraser
from videollm.training.parts import Holder, load_parts
from videollm.training.recipe import read_recipe
from videollm.training.tiny_lavila import FRAMES, MAX_TEXT_TOKENS, save_narrator_start, save_start
from videollm.training.trainer import checkpoints

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "runs/tiny_lavila"
ASSETS = ROOT / "videollm/assets"
PAIRS = 40_000
EYE_CLIPS = 8000
WORDS = 20_000
SCENES_A_FILM = 60
HUMAN_FILMS, UNLABELLED_FILMS = 4, 14
VALIDATION_CLIPS, TEST_CLIPS = 200, 1000
WINDOW_SECONDS, STRIDE_SECONDS = 4.0, 4.0
KEPT_SHARE = 0.5
"""Of the narrations, the best by the baseline's similarity. A share needs no scale: a similarity on which the baseline
was trained says nothing about those of films that it never saw."""


def step(folder: Path, what: str) -> bool:
    """Whether a step is still to be done."""
    done = folder.exists()
    print(f"{what}: {'done before' if done else 'running'}", flush=True)
    return not done


def videollm(*words: object, log: str) -> None:
    """A command of the package, its words into a log."""
    command = [sys.executable, "-m", "videollm", *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    print("  videollm", *words, flush=True)
    with (RUN / f"{log}.log").open("ab") as file:
        if subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env=environment).returncode:
            sys.exit(f"failed; see runs/tiny_lavila/{log}.log")
    print(f"  {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


# --- 1: data ----------------------------------------------------------------------------------------------------------


def clip_sample(name: str, path: Path, start: float, end: float, texts: Sequence[str], source: str) -> Sample:
    """A stretch of a film and what is said of it."""
    shown = user("", [MediaPart("clip", "video")])
    return Sample(name, (shown, *map(assistant, texts)), {"clip": Media(str(path), start, end)}, source)


def around(moment: float, end: float) -> tuple[float, float]:
    """The window that a sentence about a moment belongs to, inside of a film."""
    start = min(max(moment - WINDOW_SECONDS / 2, 0.0), max(end - WINDOW_SECONDS, 0.0))
    return round(start, 3), round(min(start + WINDOW_SECONDS, end), 3)


def write_film(path: Path, scenes: Sequence[Any]) -> list[Shown]:
    """A film as a file, if it is not there; what it shows."""
    frames, told = film(scenes)
    if not path.exists():
        write_video(path, frames, fps=4, preset="ultrafast", key_every=16)
    return told


def write_data(folder: Path) -> None:
    """Films with people's sentences, films without, and the clips that are kept for testing."""
    rng, say = np.random.default_rng([0, 43]), Captioner()
    for name in ("human", "unlabelled"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    moments: list[Sample] = []
    for number in range(HUMAN_FILMS):
        path = folder / f"human/{number:02}.mp4"
        told = write_film(path, list(islice(film_scenes(number), SCENES_A_FILM)))
        for shown in told:
            moment = float(rng.uniform(shown.start_seconds + 0.3, shown.end_seconds - 0.3))
            window = around(moment, told[-1].end_seconds)
            moments.append(clip_sample(f"human-{len(moments)}", path, *window, [say(shown.facts, rng)], "human"))
    write_samples(folder / "human.jsonl", moments)
    for number in range(UNLABELLED_FILMS):
        write_film(folder / f"unlabelled/{number:02}.mp4", list(islice(film_scenes(100 + number), SCENES_A_FILM)))
    for name, count, first in (("test", TEST_CLIPS, 0), ("validation", VALIDATION_CLIPS, 1000)):
        write_held_out(folder, name, count, first, rng)
    write_pairs(folder / "pairs.jsonl")


def write_held_out(folder: Path, name: str, count: int, first: int, rng: np.random.Generator) -> None:
    """Clips of kept films, no two of the same facts, and a sentence for each."""
    say, known, samples = Captioner(), set[Facts](), list[Sample]()
    (folder / name).mkdir(exist_ok=True)
    for number in range(40):
        path = folder / f"{name}/{number:02}.mp4"
        told = write_film(path, list(islice(film_scenes(first + number, ("one", "two"), kept=True), SCENES_A_FILM)))
        for shown in told:
            if shown.facts not in known and len(samples) < count:
                known.add(shown.facts)
                window = around((shown.start_seconds + shown.end_seconds) / 2, told[-1].end_seconds)
                samples.append(clip_sample(f"{name}-{len(samples)}", path, *window, [say(shown.facts, rng)], name))
        if len(samples) == count:
            break
    write_samples(folder / f"{name}.jsonl", samples)


def write_pairs(path: Path) -> None:
    """Sentences and others of the same meaning: what a paraphrase corpus is to the published rephraser.

    Every other sentence is said again in the plain wording, where nothing but the facts is to be learned: with free
    wordings alone, the colours of things and of the ground were still swapped after 2000 steps.
    """
    rng, say = np.random.default_rng([0, 41]), Captioner(0.0)

    def pairs() -> Iterator[Sample]:
        for number in range(PAIRS):
            facts = draw_facts(rng)
            said = list(dict.fromkeys(say(facts, rng) for _ in range(12)))[:4]
            others = [plain_caption(facts)] if number % 2 else said[1:]
            if others and others[0] != said[0]:
                yield Sample(f"pair-{number}", (user(said[0]), *map(assistant, others)), {}, "pairs")

    write_samples(path, pairs())


def write_later(folder: Path) -> None:
    """What people write about the films that were unlabelled, a sentence for every window: for what is shipped."""
    rng, say = np.random.default_rng([0, 47]), Captioner()
    samples: list[Sample] = []
    for number in range(UNLABELLED_FILMS):
        path = folder / f"unlabelled/{number:02}.mp4"
        told = write_film(path, list(islice(film_scenes(100 + number), SCENES_A_FILM)))
        for start in np.arange(0, told[-1].end_seconds - WINDOW_SECONDS, WINDOW_SECONDS):
            middle = start + WINDOW_SECONDS / 2
            shown = next(one for one in told if one.start_seconds <= middle < one.end_seconds)
            window = float(start), float(start) + WINDOW_SECONDS
            samples.append(clip_sample(f"later-{len(samples)}", path, *window, [say(shown.facts, rng)], "later"))
    write_samples(folder / "later.jsonl", samples)
    for _ in kept_frames(folder / "later.jsonl"):
        pass


class OwnFilms(ClipFrames):
    """Keeps frames of films that this script made: they are read here, without a process of limits for each."""

    def _decoded(self, media: Media, seed: int | None) -> np.ndarray:
        sampling = FrameSampling("centre", frames=self.frames)
        clip = read_clip(media.path, frames=sampling, start_seconds=media.start_seconds, end_seconds=media.end_seconds)
        assert clip.frames is not None
        pixels = clip.frames.pixels
        return pixels if len(pixels) == self.frames else pixels[segment_centre_indices(len(pixels), self.frames)]


def kept_frames(path: Path) -> Iterator[tuple[Sample, np.ndarray]]:
    """The samples of a file and their frames, which are decoded once and kept for every run."""
    samples, frames = JsonlSamples(path), OwnFilms(FRAMES, kept=str(RUN / "frames"))
    draw = np.random.default_rng(0)
    for index in range(len(samples)):
        yield samples[index], frames(clip_of(samples[index]), draw)


# --- 2 to 4: what the loop begins with --------------------------------------------------------------------------------


def learn_the_eye() -> None:
    """The run of train_configs/tiny_lavila_eye.yaml, on clips that are drawn as they are needed."""
    from videollm.training.run import train
    from videollm.training.tiny_lavila import eye_pieces

    recipe: Any = read_recipe(ROOT / "train_configs/tiny_lavila_eye.yaml")
    train(recipe, pieces=eye_pieces(recipe, EYE_CLIPS))


def learn_the_words() -> None:
    """The run of train_configs/tiny_lavila_words.yaml."""
    from videollm.training.run import train
    from videollm.training.tiny_lavila import words_pieces

    recipe: Any = read_recipe(ROOT / "train_configs/tiny_lavila_words.yaml")
    train(recipe, pieces=words_pieces(recipe, texts_of_the_world(WORDS, 1, PLAIN_SHARE)))


# --- 5: narrations ----------------------------------------------------------------------------------------------------


def write_narrated(narrations: Path, folder: Path) -> None:
    """The narrations that are kept as samples, stretches of at most a window, and people's sentences once more: both as
    they were said and as the rephraser says them."""
    rows = [
        (file.stem, json.loads(line))
        for file in sorted(narrations.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    least = float(np.quantile([told["similarity"] for _, told in rows], 1 - KEPT_SHARE))
    kept = [(name, told) for name, told in rows if told["similarity"] >= least]
    print(f"  {len(kept)} of {len(rows)} narrations kept, from a similarity of {least:.3f} on", flush=True)
    human = JsonlSamples(folder / "human.jsonl")
    people = [human[index] for index in range(len(human))]
    said = sorted({told["text"] for _, told in kept} | {sample.messages[-1].text for sample in people})
    rephraser = load_rephraser(RUN / "rephraser/model", device="cpu")
    others: dict[str, list[str]] = {}
    for at in range(0, len(said), 32):  # fewer beams than published: twenty would take longer than all the rest
        some = said[at : at + 32]
        others |= dict(zip(some, rephraser.rephrase(some, 3, groups=5, max_tokens=MAX_TEXT_TOKENS), strict=True))

    def rephrased() -> Iterator[Sample]:
        for sample in people:
            text, media = sample.messages[-1].text, clip_of(sample)
            yield Sample(
                sample.id, (sample.messages[0], *map(assistant, (text, *others[text]))), {"clip": media}, "said"
            )

    def narrated() -> Iterator[Sample]:
        for number, (name, told) in enumerate(kept):
            start, end, text = told["start_seconds"], told["end_seconds"], told["text"]
            if end - start < 1.0:
                continue
            middle = (start + end) / 2
            start, end = max(start, middle - WINDOW_SECONDS / 2), min(end, middle + WINDOW_SECONDS / 2)
            path = RUN / f"data/unlabelled/{name}.mp4"
            yield clip_sample(
                f"narrated-{number}", path, round(start, 3), round(end, 3), [text, *others[text]], "narrated"
            )

    write_samples(folder / "rephrased.jsonl", rephrased())
    write_samples(folder / "narrated.jsonl", narrated())


# --- 6: the comparison ------------------------------------------------------------------------------------------------


def retrieval(folder: Path, checkpoint: Path | None = None, clips: str = "test") -> dict[str, float]:
    """How well a dual encoder finds held-out clips from their captions, and the captions from the clips.

    Args:
        folder: of the finished model.
        checkpoint: of its run, at which it is looked at instead.
        clips: the 1,000 of "test", or those of "validation".
    """
    torch.set_num_threads(1)
    model, processor = families.load(folder, LavilaDualEncoder, device="cpu")
    if checkpoint is not None:
        load_parts(Holder(model), checkpoint)
    pairs = [(frames, sample.messages[-1].text) for sample, frames in kept_frames(RUN / f"data/{clips}.jsonl")]
    videos, texts = [], []
    with torch.inference_mode():
        for at in range(0, len(pairs), 50):
            frames, said = zip(*pairs[at : at + 50], strict=True)
            found = model(**processor.clips(frames), **processor.texts(said))
            videos.append(found.video_embeds)
            texts.append(found.text_embeds)
    similarity = (torch.cat(texts) @ torch.cat(videos).T).numpy()
    to_video, to_text = retrieval_scores(similarity), retrieval_scores(similarity.T)
    return {**to_video, "texts R1": to_text["R1"], "own": float(np.diag(similarity).mean())}


def facts_retrieval() -> float:
    """R@1 of who reads the facts of captions, and sees those of clips without error."""
    facts = [read_facts(sample.messages[-1].text) for sample, _ in kept_frames(RUN / "data/test.jsonl")]
    return retrieval_scores(np.array([[float(a == b) for b in facts] for a in facts]))["R1"]


def compare(seeds: int) -> None:
    """Trains and tests both sides for each seed; prints the table."""
    scores: dict[str, list[dict[str, float]]] = {"human": [], "mixture": []}
    best: list[dict[str, float]] = []
    for seed in range(seeds):
        for side, found in scores.items():
            name = f"{side}_{seed}"
            if step(RUN / name / "model", name):
                videollm("train", f"train_configs/tiny_lavila_{side}.yaml", "--set", f"seed={seed}",
                         "--set", f"output=runs/tiny_lavila/{name}", log=name)  # fmt: skip
            found.append(retrieval(RUN / name / "model"))
            print(f"  {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in found[-1].items()), flush=True)
            if side == "human":
                at = {one.name: retrieval(RUN / name / "model", one) for one in checkpoints(RUN / name)}
                print("  R@1 at " + ", ".join(f"{step} {one['R1']:.3f}" for step, one in at.items()), flush=True)
                best.append(max(at.values(), key=lambda one: one["R1"]))
    print(f"\n{TEST_CLIPS} held-out clips, text to video; mean and spread of {seeds} seeds")
    print("| learned from | R@1 | R@5 | median rank |\n|---|---|---|---|")
    for side, found in {**scores, "human, better of two checkpoints": best}.items():
        cells = []
        for key in ("R1", "R5", "MedR"):
            values = [one[key] for one in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
        print(f"| {side} | {' | '.join(cells)} |")
    print(f"| chance | {1 / TEST_CLIPS:.3f} | {5 / TEST_CLIPS:.3f} | {(TEST_CLIPS + 1) / 2:.1f} |")
    print(f"| the facts themselves | {facts_retrieval():.3f} | | |", flush=True)


# --- to the end -------------------------------------------------------------------------------------------------------


def ship(source: Path, target: Path) -> None:
    """A finished model into the package, in half precision; its card stays."""
    import shutil

    kind = json.loads((source / "config.json").read_text(encoding="utf-8"))["model_type"]
    classes = {"lavila_dual_encoder": LavilaDualEncoder, "lavila_narrator": LavilaNarrator}
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy2(file, target / file.name)
    model = classes.get(kind, T5ForConditionalGeneration).from_pretrained(source, local_files_only=True)
    model.half().save_pretrained(target)
    print(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.1f} MB", flush=True)


def main() -> None:
    """Every step that is not done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="of the comparison; default: 3")
    parser.add_argument("--ship", action="store_true", help="then put the models into the package")
    args = parser.parse_args()
    data = RUN / "data"
    if step(data / "pairs.jsonl", "data"):
        write_data(data)
    if step(RUN / "start/rephraser", "start"):
        save_start(RUN / "start", texts_of_the_world())
    if step(RUN / "eye/model", "eye"):
        learn_the_eye()
    if step(RUN / "rephraser/model", "rephraser"):
        videollm("train", "train_configs/tiny_lavila_rephraser.yaml", log="rephraser")
    if step(RUN / "human_0/model", "baseline"):
        for _ in kept_frames(data / "human.jsonl"):
            pass
        videollm("train", "train_configs/tiny_lavila_human.yaml", log="human_0")
    if step(RUN / "start/narrator", "narrator's start"):
        clips = [frames for _, frames in islice(kept_frames(data / "human.jsonl"), 16)]
        save_narrator_start(RUN / "start/narrator", texts_of_the_world(), RUN / "human_0/model", clips)
    if step(RUN / "words/model", "words"):
        learn_the_words()
    if step(RUN / "narrator/model", "narrator"):
        videollm("train", "train_configs/tiny_lavila_narrator.yaml", log="narrator")
    if step(data / "narrated.jsonl", "narrations"):
        settings = {
            "--out": RUN / "narrations", "--model": RUN / "narrator/model", "--scorer": RUN / "human_0/model",
            "--threshold": -1, "--window": WINDOW_SECONDS, "--stride": STRIDE_SECONDS, "--batch": 32,
        }  # fmt: skip
        videollm("narrate", data / "unlabelled", *chain.from_iterable(settings.items()), log="narrations")
        write_narrated(RUN / "narrations", data)
        for _ in kept_frames(data / "narrated.jsonl"):
            pass
    compare(args.seeds)
    if args.ship:
        if step(data / "later.jsonl", "people's sentences about the other films"):
            write_later(data)
        if step(RUN / "narrator_more/model", "narrator to ship"):
            videollm("train", "train_configs/tiny_lavila_narrator_more.yaml", log="narrator_more")
        for run, name in (("mixture_0", "dual_encoder"), ("narrator_more", "narrator"), ("rephraser", "rephraser")):
            ship(RUN / run / "model", ASSETS / f"tiny_{name}")


if __name__ == "__main__":
    main()
