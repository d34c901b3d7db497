"""Loading by name or folder."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import save_file

from videollm.errors import ConfigError, MemoryPlanError, MissingDependencyError, ModelNotFoundError
from videollm.messages import MediaPart, user
from videollm.models import hub, memory


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
    with pytest.raises(ConfigError, match="device 'meta' cannot be used here"):
        hub.load(folder, device="meta")


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
    rest = {value.dtype for name, value in model.named_parameters() if name.removesuffix(".weight") not in quantised}
    assert rest == {torch.bfloat16}
    assert {
        v.dtype for v in hub.load(folder, device="cpu", bits=bits, dtype="float32")[0].vision_model.parameters()
    } == {torch.float32}


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_a_model_that_was_saved_quantised(folder, processor, clips, tmp_path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    model, its_processor = hub.load(folder, device="cpu", bits=bits)
    model.save_pretrained(tmp_path)
    its_processor.save_pretrained(tmp_path)
    batch = processor([[user("what?", [MediaPart("long")])]], clips)
    logits = model(**batch).logits
    for asked in (None, bits):
        loaded, _ = hub.load(tmp_path, device="cpu", bits=asked)
        assert torch.equal(loaded(**batch).logits, logits)
    with pytest.raises(ConfigError, match=rf"was saved in {bits} bits and cannot be loaded in {12 - bits}") as caught:
        hub.load(tmp_path, device="cpu", bits=12 - bits)
    one_line(caught.value)


def test_a_model_quantised_in_another_way(folder, tmp_path) -> None:
    copy(folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFoundError, match="quantised by 'gptq'"):
        hub.load(tmp_path)


def test_the_placement_names_every_part(model) -> None:
    places = hub.placement(model.config, {"encoders": "cuda:0", "decoder": "cuda:1"})
    assert set(places) == {name.split(".")[0] for name, _ in model.named_parameters()}
    assert {name for name, place in places.items() if place == "cuda:1"} == {"language_model"}
    deaf = hub.placement(type(model.config)(), {"encoders": "cpu", "decoder": "cuda"})
    assert "vision_model" in deaf and not any(name.startswith("audio") for name in deaf)


@torch.no_grad()
def test_encoders_and_decoder_on_devices_of_their_own(folder, model, processor, clips) -> None:
    """As far as one device allows: both on the CPU; and encoders that come from the disk each time they are used."""
    pytest.importorskip("accelerate")
    batch = processor([[user("what?", [MediaPart("long")])]], clips)
    logits = model(**batch).logits
    split, _ = hub.load(folder, device_map={"encoders": "cpu", "decoder": "cpu"})
    assert torch.equal(split(**batch).logits, logits)
    places = hub.placement(model.config, {"encoders": "cpu", "decoder": "cpu"})
    away, _ = hub.load(folder, device_map=places | {"vision_model": "disk", "audio_model": "disk", "qformer": "disk"})
    assert next(away.vision_model.parameters()).device.type == "meta"
    assert torch.equal(away(**batch).logits, logits)
    with pytest.raises(ConfigError, match=r"names \['encoders'\]"):
        hub.load(folder, device_map={"encoders": "cpu"})
    with pytest.raises(ConfigError, match="device 'toaster' cannot be used here"):
        hub.load(folder, device_map={"encoders": "cpu", "decoder": "toaster"})


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("encoders", ["cuda:0", "cpu"])
@torch.no_grad()
def test_two_devices_with_a_gpu(folder, model, processor, clips, encoders: str, bits: int | None) -> None:
    second = "cuda:1" if torch.cuda.device_count() > 1 else "cuda:0"
    split, _ = hub.load(
        folder, device_map={"encoders": encoders, "decoder": second}, bits=bits, dtype=None if bits else "float32"
    )
    batch = processor([[user("what?", [MediaPart("long")])]], clips)
    logits = split(**{name: value.to(split.device) for name, value in batch.items()}).logits.cpu()
    assert split.language_model.lm_head.weight.device == torch.device(second)
    if bits is None:
        torch.testing.assert_close(logits, model(**batch).logits, atol=1e-2, rtol=1e-2)
    assert torch.isfinite(logits).all()


def copy(source, target) -> None:
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def test_a_large_model_is_announced_and_one_too_large_is_refused(folder, tmp_path) -> None:
    """The weights are a file of zeros that takes no room; nothing of it is read before the plan."""
    copy(folder, tmp_path)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2**30 + 1)
    announced = []
    with pytest.raises(ModelNotFoundError, match="incomplete"):
        hub.load(tmp_path, device="cpu", announce=announced.append)
    assert len(announced) == 1 and announced[0].precision.name == "fp32"
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["vocab_size"] = 10**10
    (tmp_path / "config.json").write_text(json.dumps(config))
    if memory.free_bytes("cpu") is None:
        pytest.skip("this system does not say how much memory is free")
    for bits, name in ((None, "fp32"), (4, "4-bit")):
        if bits:
            pytest.importorskip("bitsandbytes")
        with pytest.raises(MemoryPlanError, match=rf"in {name} takes .* nothing fits: the least, ") as caught:
            hub.load(tmp_path, device="cpu", bits=bits, announce=announced.append)
        one_line(caught.value)
    assert len(announced) >= 2


def test_a_folder_without_its_tokenizer_or_processor(folder, tmp_path) -> None:
    copy(folder, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"it has no tokenizer \(tokenizer\.json or") as caught:
        hub.load(tmp_path)
    one_line(caught.value)
    copy(folder, tmp_path)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"it has no processor_config\.json"):
        hub.load(tmp_path)
    (tmp_path / "processor_config.json").write_text("[]")
    with pytest.raises(ModelNotFoundError, match="incomplete") as caught:
        hub.load(tmp_path)
    one_line(caught.value)


def test_a_config_that_is_not_of_the_weights(folder, tmp_path) -> None:
    copy(folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFoundError, match="are not those of its config") as caught:
        hub.load(tmp_path)
    one_line(caught.value)
    config["vision_config"]["hidden_size"] = "wide"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFoundError, match=r"config\.json cannot be used") as caught:
        hub.load(tmp_path)
    one_line(caught.value)


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


def test_code_in_a_folder_is_neither_run_nor_offered(folder, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would ask at the terminal whether to run it."""
    copy(folder, tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    path = tmp_path / "tokenizer_config.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    auto = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    path.write_text(json.dumps(held | auto))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked whether to run foreign code"))
    with pytest.raises(ModelNotFoundError, match="incomplete") as caught:
        hub.load(tmp_path)
    one_line(caught.value)
    assert not (tmp_path / "ran").exists()
