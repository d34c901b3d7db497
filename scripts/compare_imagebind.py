"""Our ImageBind trunks beside the `imagebind` package, which lives in an environment of its own.

The package pins a torch of 2022 and cannot be installed beside ours, and its code and weights are not for commercial
use; so its part runs in the interpreter that is named here, and only numbers cross over: the weights, the inputs and
its outputs. Ours then loads those weights as `videollm convert` does, and the figures are printed and recorded.

    python scripts/compare_imagebind.py --python OTHER_ENV/bin/python [--weights imagebind_huge.pth] [--out FILE.json]

Without --weights both hold the same random weights, at a reduced depth and the published widths. Exit codes: 0 compared
and within the tolerance; 1 compared and not; 2 could not run; 77 skipped: no interpreter with the package was given.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SKIPPED = 77
TOLERANCE = 1e-4
"""Largest difference of embeddings, as a share of their length."""

SHALLOW = {"audio_num_blocks": 3, "vision_num_blocks": 3, "text_num_blocks": 3, "depth_num_blocks": 1}
SHALLOW |= {"thermal_num_blocks": 1, "imu_num_blocks": 1}

# Runs in the other environment, whose torch may be old: it only builds, feeds and saves.
THEIRS = """
import json, sys
import torch
from imagebind.models.imagebind_model import ImageBindModel, ModalityType
job = json.load(open(sys.argv[1]))
torch.manual_seed(0)
model = ImageBindModel(vision_embed_dim=1280, vision_num_blocks=job["blocks"].get("vision_num_blocks", 32),
                       vision_num_heads=16, text_embed_dim=1024, text_num_heads=16, out_embed_dim=1024,
                       text_num_blocks=job["blocks"].get("text_num_blocks", 24), audio_drop_path=0.1, imu_drop_path=0.7,
                       **{k: v for k, v in job["blocks"].items() if k[:4] not in ("visi", "text")})
if job["weights"]:
    model.load_state_dict(torch.load(job["weights"], map_location="cpu"))
else:
    for value in model.parameters():
        if value.ndim > 1:  # wide, so that embeddings depend on what they are of
            torch.nn.init.normal_(value, std=0.05)
    torch.save(model.state_dict(), job["made"])
model.eval()
draw = torch.Generator().manual_seed(1)
ids = torch.zeros(3, 77, dtype=torch.long)
for row, length in enumerate((2, 9, 75)):
    ids[row, 0] = 49406
    ids[row, 1:1 + length] = torch.randint(1, 49406, (length,), generator=draw)
    ids[row, 1 + length] = 49407
inputs = {"audio": torch.randn(3, 1, 128, 204, generator=draw), "vision": torch.randn(3, 3, 224, 224, generator=draw),
          "text": ids}
outputs = {}
with torch.no_grad():
    for name, value in inputs.items():
        found = model({getattr(ModalityType, name.upper()): value})
        # Video-LLaMA's copy returns features beside embeddings.
        outputs[name] = (found[-1] if isinstance(found, tuple) else found)[getattr(ModalityType, name.upper())]
torch.save({"inputs": inputs, "outputs": outputs, "torch": str(torch.__version__)}, job["results"])
"""


def has_package(python: str) -> bool:
    """Whether an interpreter can import the package."""
    try:
        done = subprocess.run([python, "-c", "import imagebind.models.imagebind_model"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def theirs(python: str, folder: Path, weights: Path | None) -> tuple[dict[str, Any], Path]:
    """Runs the package; returns its inputs and outputs, and the file of its weights."""
    import torch

    made, results = folder / "weights.pth", folder / "results.pth"
    job = {
        "weights": str(weights.resolve()) if weights else None,
        "blocks": {} if weights else SHALLOW,
        "made": str(made),
        "results": str(results),
    }
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "theirs.py").write_text(THEIRS)
    done = subprocess.run([python, str(folder / "theirs.py"), str(folder / "job.json")], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"the package failed in {python}: {last}", file=sys.stderr)
        sys.exit(2)
    return torch.load(results, weights_only=True), weights or made


def ours(weights: Path, inputs: dict[str, Any], shallow: bool) -> dict[str, Any]:
    """Embeddings of the same inputs by our trunks, from the same weights."""
    import torch

    from videollm.convert.imagebind import imagebind_state_dict
    from videollm.models.imagebind import ImageBindConfig, ImageBindModel

    depth = {"num_hidden_layers": 3} if shallow else {}
    config = ImageBindConfig(audio_config=depth, vision_config=depth, text_config=depth)
    model = ImageBindModel(config).eval()
    model.load_state_dict(imagebind_state_dict(torch.load(weights, map_location="cpu", weights_only=True), config))
    with torch.inference_mode():
        return {name: getattr(model, f"{name}_model")(value) for name, value in inputs.items()}


def figures(a: Any, b: Any) -> dict[str, float]:
    """How far two sets of embeddings are apart: as a share of their length, and as the least cosine.

    Beside it, how far the package's embeddings of different inputs are from each other: what a difference has to be
    compared with.
    """
    import torch

    apart = (a - b).norm(dim=-1) / b.norm(dim=-1)
    others = (b - b.roll(1, 0)).norm(dim=-1) / b.norm(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
    return {
        "largest_difference": float(apart.max()),
        "least_cosine": float(cosine.min()),
        "between_inputs": float(others.min()),
        "length_ours": float(a.norm(dim=-1).mean()),
        "length_theirs": float(b.norm(dim=-1).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", help="the interpreter of an environment that has the imagebind package")
    parser.add_argument("--weights", type=Path, help="imagebind_huge.pth; default: random weights, three blocks deep")
    parser.add_argument("--out", type=Path, default=Path("runs/compare_imagebind.json"), help="where figures are kept")
    args = parser.parse_args()
    if args.python is None or not has_package(args.python):
        why = "name one with --python" if args.python is None else f"{args.python} cannot import imagebind"
        print(f"skipped: no environment with the imagebind package; {why}. Nothing was compared.")
        sys.exit(SKIPPED)
    if args.weights is not None and not args.weights.is_file():
        print(f"there is no file {args.weights}; give imagebind_huge.pth", file=sys.stderr)
        sys.exit(2)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    with tempfile.TemporaryDirectory() as name:
        found, weights = theirs(args.python, Path(name), args.weights)
        embedded = ours(weights, found["inputs"], shallow=args.weights is None)
    record: dict[str, Any] = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "weights": str(args.weights) if args.weights else "random, three blocks deep",
        "their_torch": found["torch"],
        "tolerance": TOLERANCE,
        "trunks": {trunk: figures(value, found["outputs"][trunk]) for trunk, value in embedded.items()},
    }
    record["passed"] = all(trunk["largest_difference"] <= TOLERANCE for trunk in record["trunks"].values())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    for trunk, values in record["trunks"].items():
        print(f"{trunk:<7}" + ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in values.items()))
    print(f"{'within' if record['passed'] else 'NOT within'} {TOLERANCE} of the package; recorded in {args.out}")
    sys.exit(not record["passed"])


if __name__ == "__main__":
    main()
