"""Folders of LaViLa and LF-VILA: found, loaded whole or refused in one line, looked over, and planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.lavila import small
from tests.models.lf_vila import small_lf_vila
from tests.tools import small_lavila
from videollm.errors import ModelNotFoundError
from videollm.models import families
from videollm.models.checkup import check_folder
from videollm.models.family_memory import plan_family
from videollm.models.lavila import LavilaDualEncoder, LavilaImageProcessor, LavilaNarrator
from videollm.models.lf_vila import LfVilaForRetrieval, LfVilaForVideoClassification

KINDS = ("dual", "narrator", "classifier", "rephraser", "retrieval", "classes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    small_lavila.dual_encoder_folder(folder / "dual")
    small_lavila.narrator_folder(folder / "narrator")
    small_lavila.rephraser_folder(folder / "rephraser")
    LavilaImageProcessor(size=16, num_frames=3).save_pretrained(folder / "classifier")
    small.classifier(4, 5).save_pretrained(folder / "classifier")
    processor = small_lf_vila.small_processor(tmp_path_factory.mktemp("words"))
    for name, kind in (("retrieval", LfVilaForRetrieval), ("classes", LfVilaForVideoClassification)):
        small_lf_vila.small_model(kind).save_pretrained(folder / name)
        (processor.image_processor if name == "classes" else processor).save_pretrained(folder / name)
    return folder


def copied(folder: Path, into: Path) -> Path:
    for file in folder.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    return into


def with_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_folder(folders: Path, kind: str) -> None:
    found = check_folder(folders / kind)
    assert found.problems == () and found.family is not None
    model, _ = families.load(folders / kind)
    assert found.parameters == sum(value.numel() for value in model.parameters()) and not model.training
    assert type(model) is found.family.model_class


@pytest.mark.parametrize(
    ("kind", "change", "problem", "refused"),
    [
        ("dual", lambda w: w.pop("visual_projection.weight"), "1 missing: visual_projection", "1 missing weights"),
        ("narrator", lambda w: w.update(more=torch.ones(1)), "1 unknown: more", "1 unexpected weights, e.g. more"),
        ("classifier", lambda w: w.update({"heads.0.bias": torch.ones(9)}), "heads.0.bias is 9, the config asks for 4",
         "cannot be used"),
        ("retrieval", lambda w: w.pop("video_global_projection.bias"), "1 missing: video_global_projection.bias",
         "video_global_projection.bias"),
    ],
)  # fmt: skip
def test_the_exact_fault(folders: Path, tmp_path: Path, kind: str, change: Any, problem: str, refused: str) -> None:
    with_weights(copied(folders / kind, tmp_path), change)
    (line,) = check_folder(tmp_path).problems
    assert problem in line
    with pytest.raises(ModelNotFoundError, match=refused) as caught:
        families.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(folders: Path, tmp_path: Path) -> None:
    copied(folders / "retrieval", tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "tokenizer.json").unlink()
    (line,) = check_folder(tmp_path).problems
    assert "its processor cannot be used" in line
    (tmp_path / "model.safetensors").unlink()
    assert check_folder(tmp_path).problems[0] == "there is no model.safetensors"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Other"]}))
    with pytest.raises(ModelNotFoundError, match="must name one of LfVilaForPreTraining, "):
        families.look_up(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"sentence_layers": 99}))
    with pytest.raises(ModelNotFoundError, match=r"config\.json cannot be used"):
        families.look_up(tmp_path)


def test_another_model_than_wanted(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is LaViLa's narrator; this needs LavilaDualEncoder"):
        families.load(folders / "narrator", LavilaDualEncoder)
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json that can be read"):
        families.load(tmp_path, LavilaNarrator)
    with pytest.raises(ModelNotFoundError, match="is of a 'video_llama' model"):
        families.look_up("tiny")


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan(folders: Path, kind: str) -> None:
    found = families.look_up(folders / kind)
    single, half = plan_family(found)
    assert single.weights_bytes == 4 * check_folder(folders / kind).parameters and "GiB" in single.summary
    assert half.weights_bytes * 2 == single.weights_bytes and half.encoding_bytes * 2 == single.encoding_bytes
    assert (single.decoding_bytes > 0) == (kind == "narrator")
    if kind in ("dual", "retrieval"):
        # Twice the frames take about twice as much.
        config = found.config.vision_config if kind == "dual" else found.config
        config.num_frames *= 2
        assert 1.6 < plan_family(found)[0].encoding_bytes / single.encoding_bytes < 2.4
