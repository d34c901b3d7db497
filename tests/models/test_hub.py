"""Loading by name or folder."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import save_file

from videollm.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from videollm.messages import MediaPart, user
from videollm.models import hub


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model with blanks é")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_a_saved_folder_answers_as_before(folder, model, processor, clips) -> None:
    loaded, its_processor = hub.load(folder, device="cpu")
    assert not loaded.training and loaded.dtype == torch.float32
    messages = [user("what?", [MediaPart("long")])]
    before, after = processor([messages], clips), its_processor([messages], clips)
    assert torch.equal(loaded(**after).logits, model(**before).logits)


def test_dtype(folder) -> None:
    for dtype in ("bfloat16", torch.bfloat16):
        assert hub.load(str(folder), device="cpu", dtype=dtype)[0].dtype == torch.bfloat16
    for wrong in ("int8", "fancy"):
        with pytest.raises(ConfigError, match=f"dtype '{wrong}' is no floating point type"):
            hub.load(folder, dtype=wrong)


def test_device(folder) -> None:
    assert hub.load(folder, device="auto")[0].device.type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="device 'toaster' cannot be used here"):
        hub.load(folder, device="toaster")


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_models_that_are_not_there(tmp_path, folder) -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'huge'") as caught:
        hub.load("huge")
    assert "tiny" in one_line(caught.value)
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        hub.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelNotFoundError, match=r"config\.json cannot be read"):
        hub.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelNotFoundError, match="of a 'bert' model"):
        hub.load(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ModelNotFoundError, match="incomplete") as caught:
        hub.load(tmp_path)
    one_line(caught.value)


def test_bits_without_the_package(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find_spec(name, *rest)
    )
    with pytest.raises(MissingDependencyError, match="pip install") as caught:
        hub.load(folder, bits=4)
    one_line(caught.value)
    with pytest.raises(ConfigError, match="bits is 4 or 8, found 3"):
        hub.load(folder, bits=3)


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_only_the_language_model_is_quantised(folder, processor, clips, bits: int) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model, _ = hub.load(folder, device="cpu", bits=bits)
    kind = bitsandbytes.nn.Linear4bit if bits == 4 else bitsandbytes.nn.Linear8bitLt
    quantised = {name for name, module in model.named_modules() if isinstance(module, kind)}
    assert quantised and all(name.startswith("language_model.model.layers.") for name in quantised)
    batch = processor([[user("what?", [MediaPart("long")])]], clips)
    assert model.generate(**batch, max_new_tokens=3).shape[1] == batch["input_ids"].shape[1] + 3


def test_a_folder_whose_weights_are_cut_off(folder, tmp_path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 2000 if file.suffix == ".safetensors" else None])
    with pytest.raises(ModelNotFoundError, match="incomplete") as caught:
        hub.load(tmp_path)
    one_line(caught.value)


def test_a_folder_that_lacks_weights(folder, model, tmp_path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if "video_projection" not in name}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotFoundError, match=r"2 missing weights, e.g. video_projection\.bias"):
        hub.load(tmp_path)
