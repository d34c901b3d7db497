"""Training runs small enough for tests: a model's folder, datasets of every modality, and recipes over them."""

import json
import os
import signal
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


ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(ROOT),
}  # fmt: skip


class Ranks:
    """Runs of recipes in processes that have imported everything already, see `tests.training.ranks`."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.ranks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env={**os.environ, **ENVIRONMENT}, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def __call__(self, recipe, processes=1):
        """Runs a recipe; returns what was printed."""
        output = Path(recipe["output"])
        path = output.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        self._process.stdin.write(json.dumps({"recipe": str(path), "processes": processes}) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        told = output.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        assert codes == [0] * processes, f"{codes}\n{told[-6000:]}"
        return told


def launch(recipe, launcher):
    """Runs ``videollm train`` on a recipe by a launcher's command line; returns the finished process."""
    path = Path(recipe["output"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return subprocess.run(
        [*launcher, "videollm", "train", str(path)],
        capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}, cwd=ROOT, timeout=280, check=False,
    )  # fmt: skip


def losses_of(output):
    """The loss of each step, from the newest checkpoint of a run."""
    folder = max(Path(output).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return {line["step"]: line["loss"] for line in history if "loss" in line}
