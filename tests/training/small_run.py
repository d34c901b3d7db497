"""Training runs small enough for tests: a model's folder, datasets of every modality, and recipes over them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.small_model import small_model
from videollm.clips import Waveform
from videollm.media.write import write_sound, write_video

ROOT = Path(__file__).resolve().parents[2]
MODALITIES = ("words", "pictures", "films", "sounds")


def write_model(folder, dropout=0.0):
    """The small model as a folder."""
    model, processor = small_model()
    for name in ("qformer_config", "video_qformer_config", "audio_qformer_config"):
        config = getattr(model.config, name)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_datasets(folder, count=12):
    """A JSONL file for each modality."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels[0]).save(folder / f"picture{number}.png")
        write_video(folder / f"film{number}.mp4", pixels, fps=4)
        samples = draw.normal(0, 0.2, (1, 8000)).astype(np.float32)
        write_sound(folder / f"sound{number}.wav", Waveform(samples, 8000))
    endings = {
        "pictures": ("picture", "png", "image"),
        "films": ("film", "mp4", "video"),
        "sounds": ("sound", "wav", "audio"),
    }
    for name in MODALITIES:
        lines = []
        for number in range(count):
            shown, media = [], {}
            if name in endings:
                stem, suffix, kind = endings[name]
                shown, media = [{"type": kind, "clip": "it"}], {"it": {"path": f"{stem}{number % 4}.{suffix}"}}
            words = " ".join(f"shape {n}" for n in range(number % 5 + 1))
            question = [*shown, {"type": "text", "text": f"what is in the {name}? {number}"}]
            answer = [{"type": "text", "text": f"a red circle and {words} in the {name}."}]
            messages = [{"role": "user", "parts": question}, {"role": "assistant", "parts": answer}]
            lines.append(json.dumps({"id": str(number), "messages": messages, "media": media}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def recipe_of(root, output, **changes):
    """A recipe over ``root/model`` and ``root/data``, as the mapping of its file."""
    base = {
        "stage": "stage2", "model": str(root / "model"), "output": str(root / output), "batch_size": 2, "steps": 20,
        "learning_rate": 5e-4, "warmup_steps": 3, "bf16": False, "workers": 0, "log_steps": 1, "save_steps": 10,
        "batch_from_one_dataset": True,
        "datasets": [{"format": "jsonl", "path": str(root / "data" / f"{name}.jsonl")} for name in MODALITIES],
    }  # fmt: skip
    return {**base, **changes}


def launch(recipe, *flags, processes=1, check=True):
    """Runs ``videollm train`` on a recipe in so many processes; returns the finished process."""
    output = Path(recipe["output"])
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
        "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [*launcher, "-m", "videollm", "train", str(path), *flags],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stdout[-3000:] + done.stderr[-6000:]
    return done


def losses_of(output):
    """The loss of each step, from the newest checkpoint of a run."""
    folder = max(Path(output).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return {line["step"]: line["loss"] for line in history if "loss" in line}
