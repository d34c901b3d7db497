"""The small LaViLa models that come with the package, by name: they narrate, find and rephrase."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from videollm.data.world_narrations import Facts, film, film_scenes, plain_caption, read_facts
from videollm.evaluation.retrieval import ranks
from videollm.media.write import write_video
from videollm.models import families, hub
from videollm.models.lavila import LavilaDualEncoder
from videollm.tools.narrate import narrate
from videollm.tools.narrators import load_narrator, load_rephraser, load_scorer

CLIPS = hub.EMBEDDED["tiny"].parent / "clips"
NAMES = ("tiny_dual_encoder", "tiny_narrator", "tiny_rephraser")
SENTENCES = (
    "a red star moves left on a green background",
    "a blue circle stays still on a white background",
    "a yellow square grows on a black background",
    "a white triangle moves in a circle on a gray background",
)


def test_they_are_small() -> None:
    sizes = [sum(file.stat().st_size for file in hub.EMBEDDED[name].iterdir()) for name in NAMES]
    assert max(sizes) < 20e6 and sum(sizes) < 15e6
    for name in NAMES:
        model, _ = families.load(name, device="cpu")
        card = (hub.EMBEDDED[name] / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert "drawn" in card and not model.training


def test_it_narrates_a_clip() -> None:
    """The bundled clip with a cut: first a blue circle, whose way it tells wrong, then a yellow star that moves up."""
    narrator = load_narrator("tiny_narrator", device="cpu")
    found = list(narrate(CLIPS / "cut.mp4", narrator, window_seconds=2.0, stride_seconds=1.0))
    first = read_facts(found[0].text)
    assert first is not None and first.background == "white"
    assert [thing[:2] for thing in first.things] == [("blue", "circle")]
    assert read_facts(found[-1].text) == Facts((("yellow", "star", "up"),), "brown")
    assert abs(found[-1].start_seconds - 2.45) <= 1


@pytest.mark.slow
def test_it_narrates_a_film(tmp_path: Path) -> None:
    """Ten held-out scenes of one thing: in the middle of nearly each its thing is named, in a sentence of the world."""
    frames, told = film(list(islice(film_scenes(7, ("one",), kept=True), 10)))
    path = write_video(tmp_path / "film.mp4", frames, fps=4, preset="ultrafast")
    narrator = load_narrator("tiny_narrator", device="cpu")
    found = list(narrate(path, narrator, window_seconds=2.0, stride_seconds=1.0))
    named = readable = 0
    for shown in told:
        (thing,) = shown.facts.things
        middle = (shown.start_seconds + shown.end_seconds) / 2
        (there,) = (one for one in found if one.start_seconds <= middle < one.end_seconds)
        named += f"{thing[0]} {thing[1]}" in there.text
        readable += read_facts(there.text) is not None
    assert named >= 9 and readable >= 9, [one.text for one in found]


def test_it_finds_clips_by_what_is_said_of_them() -> None:
    scenes = list(islice(film_scenes(8, ("one", "two"), kept=True), 12))
    model, processor = families.load("tiny_dual_encoder", LavilaDualEncoder, device="cpu")
    clips, said = [], []
    for scene in scenes:
        pictures, told = film([scene])
        drawn = np.stack(list(pictures))
        clips.append(drawn[np.linspace(0, len(drawn) - 1, 9).astype(int)[1::2]])
        said.append(plain_caption(told[0].facts))
    with torch.inference_mode():
        out = model(**processor.clips(clips), **processor.texts(said))
    assert (ranks((out.text_embeds @ out.video_embeds.T).numpy()) == 1).mean() >= 10 / 12
    scorer = load_scorer("tiny_dual_encoder", device="cpu")
    assert scorer.model.config.projection_dim == model.config.projection_dim


def test_it_says_the_same_in_other_words() -> None:
    rephraser = load_rephraser("tiny_rephraser", device="cpu")
    for sentence, others in zip(SENTENCES, rephraser.rephrase(SENTENCES, 3, groups=8, max_tokens=40), strict=True):
        assert len(others) == 3 and sentence not in others and len(set(others)) == 3
        assert [read_facts(other) for other in others] == [read_facts(sentence)] * 3
