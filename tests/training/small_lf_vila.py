"""LF-VILA at a size for tests, as folders that runs start from, and long videos to learn from."""

import json
from pathlib import Path

import numpy as np

from tests.models.lf_vila.small_lf_vila import TEXT, VIDEO, small_config, small_processor
from videollm.media.write import write_video
from videollm.models.lf_vila import LfVilaForPreTraining

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SENTENCES = ("a red circle bounces", "the blue square stops", "a man opens the door", "the woman runs", "it falls")


def config(layers=4, **changed):
    """Of the second stage; of the first with two layers."""
    return small_config(text_config={**TEXT, **STILL, "num_hidden_layers": layers}, video_config=VIDEO, **changed)


def write_model(folder, layers=4, **changed):
    """A model of pretraining with its processor."""
    import torch

    torch.manual_seed(0)
    LfVilaForPreTraining(config(layers, **changed)).save_pretrained(folder)
    processor = small_processor(Path(folder))
    processor.save_pretrained(folder)
    return folder


def write_videos(folder, count=4):
    """Videos of noise, and an annotation file of each kind."""
    folder = Path(folder)
    draw = np.random.default_rng(0)
    rows = {"clips": [], "retrieval": [], "activitynet_qa": [], "how2qa": [], "coin": []}
    for number in range(count):
        (folder / str(number)).mkdir(parents=True)
        clips = []
        for part in range(5):
            name = f"{number}.{part}.mp4"
            pixels = draw.integers(0, 256, (5, 48, 80, 3), dtype=np.uint8)
            write_video(folder / str(number) / name, pixels, fps=4)
            clips.append({"clip_id": name, "text": SENTENCES[(number + part) % 5]})
        write_video(folder / f"{number}.mp4", draw.integers(0, 256, (20, 48, 80, 3), dtype=np.uint8), fps=4)
        rows["clips"].append(clips)
        rows["retrieval"].append({"clip_id": str(number), "text": list(SENTENCES[: number + 1])})
        rows["activitynet_qa"].append({"video_name": str(number), "question": SENTENCES[number], "answer": number % 2})
        said = [{"start": k, "end": k + 1, "text": text} for k, text in enumerate(SENTENCES)]
        rows["how2qa"].append({
            "clip_id": str(number), "span": [1, 2], "text_q": SENTENCES[number], "text_a": list(SENTENCES[:4]),
            "text_s": said, "answer_idx": number % 4,
        })  # fmt: skip
        rows["coin"].append({"video_id": str(number), "recipe_type": number % 3})
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in found), encoding="utf-8")
    return folder
