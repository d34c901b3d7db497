"""The memory plan against published sizes, against real modules, and what it refuses."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import weakref
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from videollm.errors import MemoryPlanError
from videollm.models import hub, memory
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def published() -> dict[str, list[memory.Weight]]:
    """Names and shapes of the two published sizes."""
    return {name: memory.weights_of(memory.empty_model(VideoLlamaConfig.preset(name))) for name in ("7b", "13b")}


def test_full_size_parts_are_the_published_ones(published, reference: Path) -> None:
    folder = reference / "video_llama"
    parts = {part.name: part for part in memory.parts_of(published["7b"], memory.PRECISIONS["bf16"])}
    manifest = json.loads((folder / "manifest_llama.json").read_text())["7B_layer0_and_global"]
    llama = {name: math.prod(shape) for name, shape in manifest.items() if "inv_freq" not in name}
    repeated = 31 * sum(count for name, count in llama.items() if ".layers.0." in name)
    audio = json.loads((folder / "manifest_audio_branch.json").read_text())["param_count"]
    decoder = parts["decoder: linear layers"].parameters + parts["decoder: the rest"].parameters
    assert decoder == sum(llama.values()) + repeated
    # The published count of the trunk has the logit scale, a constant that we keep in the config.
    assert parts["ImageBind audio trunk"].parameters == audio["imagebind_audio"] - 1
    names = ("audio_Qformer", "audio_query_tokens", "audio_position_embedding", "audio_llama_proj")
    assert parts["audio Q-Former, projection"].parameters == sum(audio[name] for name in names)


def test_the_decoder_in_4_bits_is_small_enough(published) -> None:
    for weights in published.values():
        decoder = [weight for weight in weights if weight.name.startswith("language_model.")]
        linear = [weight for weight in decoder if weight.quantised]
        assert len(linear) % 7 == 0 and not any("head" in weight.name for weight in linear)

        def share(some: list[memory.Weight], precision: str) -> float:
            kept = memory.PRECISIONS[precision]
            return sum(w.bytes(kept) for w in some) / sum(w.bytes(memory.PRECISIONS["bf16"]) for w in some)

        assert share(linear, "4-bit") < 0.26
        assert share(decoder, "4-bit") <= 0.31
        assert 0.5 < share(linear, "8-bit") < 0.501


def real_bytes(module: torch.nn.Module) -> int:
    """All that a quantised layer's weight keeps in memory."""
    weight = module.weight
    if hasattr(weight, "quant_state"):
        state = weight.quant_state
        tensors = [weight.data, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    else:
        tensors = [weight.data, weight.SCB]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize(("rows", "columns"), [(256, 704), (64, 64), (96, 40), (1376, 512)])
def test_quantised_bytes_are_those_of_real_layers(rows: int, columns: int) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    options = {"compress_statistics": True, "quant_type": "nf4", "compute_dtype": torch.bfloat16}
    four = bitsandbytes.nn.Linear4bit(columns, rows, bias=False, **options).to("cpu")
    assert four.weight.quant_state is not None
    assert real_bytes(four) == memory.quantised_bytes(rows, columns, 4)
    eight = bitsandbytes.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False).to("cpu")
    if eight.weight.SCB is not None:
        assert real_bytes(eight) == memory.quantised_bytes(rows, columns, 8)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_a_loaded_model_takes_what_was_planned(bits: int | None) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    config = hub.read_config(hub.find("tiny"))
    planned = memory.plan(config, "fp32" if bits is None else f"{bits}-bit")
    model, _ = hub.load("tiny", device="cpu", bits=bits)
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    layers = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, kinds)}
    weights = memory.weights_of(memory.empty_model(config))
    assert set(layers) == ({weight.name for weight in weights if weight.quantised} if bits else set())
    rest = sum(value.nbytes for name, value in model.named_parameters() if name not in layers)
    assert rest + sum(real_bytes(module) for module in layers.values()) == planned.weights_bytes
    assert all(value.dtype == (torch.bfloat16 if bits else torch.float32) for value in model.vision_model.parameters())


@torch.no_grad()
def test_the_cache_takes_what_was_planned(model: VideoLlamaForConditionalGeneration) -> None:
    output = model(input_ids=torch.full((1, 37), 9), use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)
    assert held == 37 * memory.token_cache_bytes(model.config.text_config, 4)
    plan = memory.plan(model.config, "fp32", context_tokens=37)
    assert plan.cache_bytes == held
    assert plan.total_bytes == plan.weights_bytes + held + max(plan.media_bytes, plan.prefill_bytes)
    assert memory.plan(model.config, "fp32").context_tokens == model.config.text_config.max_position_embeddings


class AliveBytes(TorchDispatchMode):
    """Counts bytes of tensors that operations make, as long as they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(value, torch.Tensor):
                continue
            storage = value.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result


@torch.inference_mode()
def test_working_memory_is_estimated_from_above_and_not_wildly() -> None:
    """On a shape in which no constant outweighs the layers: what is alive at once, against the estimate."""
    layers = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = VideoLlamaConfig(
        vision_config={**layers, "image_size": 112, "patch_size": 8},
        qformer_config={**layers, "cross_attention_frequency": 1},
        video_qformer_config={**layers, "cross_attention_frequency": 1},
        audio_qformer_config={**layers, "cross_attention_frequency": 1},
        audio_config={**layers, "num_mel_bins": 128, "target_length": 204},
        text_config={**layers, "model_type": "llama", "vocab_size": 500, "max_position_embeddings": 1024},
        video_token_id=500,
        audio_token_id=501,
    )
    torch.manual_seed(0)
    model = VideoLlamaForConditionalGeneration(config).eval()
    planned = memory.plan(config, "fp32", frames=16, segments=8)

    with AliveBytes() as sight:
        pixels = torch.zeros(16, 3, 112, 112)
        states = torch.cat([model.encode_frames(chunk) for chunk in pixels.split(memory.AT_ONCE)])
        model.get_video_features(frame_states=states[None])
    with AliveBytes() as hearing:
        mel = torch.zeros(8, 1, 128, 204)
        model.get_audio_features(segment_states=model.encode_audio_segments(mel)[None])
    used = max(sight.peak, hearing.peak)
    assert 0.8 * planned.media_bytes <= used <= 1.05 * planned.media_bytes

    embeds = torch.zeros(1, 1024, 128)
    with AliveBytes() as prefill:
        cache = model(inputs_embeds=embeds[:, :512], use_cache=True, logits_to_keep=1).past_key_values
        model(inputs_embeds=embeds[:, 512:], past_key_values=cache, use_cache=True, logits_to_keep=1)
    allowed = planned.prefill_bytes + planned.cache_bytes
    assert 0.8 * allowed <= prefill.peak <= 1.05 * allowed


def test_lines_add_up(published) -> None:
    plan = memory.plan(VideoLlamaConfig.preset("7b"), "4-bit", model="7b", weights=published["7b"])
    lines = plan.lines()
    assert len(lines) == len(plan.parts) + 3
    assert "4-bit" in lines[-1] and "2048 tokens" in lines[-3]
    sizes = [float(line.split()[-2]) for line in lines]
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.05)
    assert plan.side_bytes("encoders") + plan.side_bytes("decoder") >= plan.total_bytes
    assert "7b in 4-bit takes" in plan.summary


def test_what_does_not_fit_is_refused_with_numbers_and_a_cure(published) -> None:
    config, weights = VideoLlamaConfig.preset("7b"), published["7b"]
    bf16 = memory.plan(config, "bf16", model="7b", weights=weights)
    memory.require_fit(bf16, config, CPU, weights=weights, free=lambda _: 24 * memory.GIB)
    memory.require_fit(bf16, config, CPU, weights=weights, free=lambda _: None)
    with pytest.raises(MemoryPlanError) as caught:
        memory.require_fit(bf16, config, CPU, weights=weights, free=lambda _: 11 * memory.GIB)
    line = str(caught.value)
    assert "\n" not in line and "cpu has 11.00 GiB free for 15.9" in line
    assert "8-bit (--bits 8) would fit" in line and "4-bit (--bits 4) would fit" in line and "fp32" not in line
    with pytest.raises(MemoryPlanError, match=r"4-bit \(--bits 4\) would fit") as caught:
        memory.require_fit(bf16, config, CPU, weights=weights, free=lambda _: 8 * memory.GIB)
    assert "8-bit" not in str(caught.value)
    with pytest.raises(MemoryPlanError, match=r"nothing fits: the least, 4-bit, takes 7\.\d+ GiB"):
        memory.require_fit(bf16, config, CPU, weights=weights, free=lambda _: 4 * memory.GIB)


def test_two_devices_are_planned_apart(published) -> None:
    config, weights = VideoLlamaConfig.preset("7b"), published["7b"]
    plan = memory.plan(config, "bf16", model="7b", weights=weights)
    devices = {"encoders": torch.device("cuda:0"), "decoder": torch.device("cuda:1")}
    assert memory.needs(plan, devices) == {
        torch.device("cuda:0"): plan.side_bytes("encoders"),
        torch.device("cuda:1"): plan.side_bytes("decoder"),
    }
    free = {torch.device("cuda:0"): 4 * memory.GIB, torch.device("cuda:1"): 16 * memory.GIB}
    memory.require_fit(plan, config, devices, weights=weights, free=free.get)
    free = {torch.device("cuda:0"): memory.GIB, torch.device("cuda:1"): 16 * memory.GIB}
    with pytest.raises(MemoryPlanError, match=r"cuda:0 has 1\.00 GiB free"):
        memory.require_fit(plan, config, devices, weights=weights, free=free.get)
    both = {"encoders": CPU, "decoder": CPU}
    assert memory.needs(plan, both) == memory.needs(plan, CPU) == {CPU: plan.total_bytes}


def test_free_memory_of_the_machine_and_of_a_container(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    cgroup.mkdir()
    assert memory.free_linux_bytes(meminfo, cgroup) is None
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable:    2000 kB\n")
    assert memory.free_linux_bytes(meminfo, cgroup) == 2000 * 1024
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("1000\n")
    assert memory.free_linux_bytes(meminfo, cgroup) == 2000 * 1024
    (cgroup / "memory.max").write_text("50000\n")
    assert memory.free_linux_bytes(meminfo, cgroup) == 49000
    (cgroup / "memory.current").write_text("60000\n")
    assert memory.free_linux_bytes(meminfo, cgroup) == 0
    here = memory.free_bytes("cpu")
    assert here is None or here > 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
def test_freed_memory_is_given_back() -> None:
    """Of pieces that others which stay keep apart."""
    process = psutil.Process()
    memory.give_memory_back()
    before = process.memory_info().rss
    pieces = [b"x" * 100_000 for _ in range(400)]
    held = process.memory_info().rss - before
    del pieces[::2]
    memory.give_memory_back()
    assert held > 36e6 and process.memory_info().rss - before < held - 15e6
    assert len(pieces) == 200


def test_a_precision_that_there_is_not(model: VideoLlamaForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="no precision '3-bit'"):
        memory.plan(model.config, "3-bit")


def test_every_parameter_has_its_part(model: VideoLlamaForConditionalGeneration) -> None:
    weights = memory.weights_of(model)
    parts = memory.parts_of(weights, memory.PRECISIONS["bf16"])
    assert sum(part.parameters for part in parts) == sum(value.numel() for value in model.parameters())
    assert {name.split(".")[0] for name, _ in model.named_parameters()} <= {*memory.ENCODERS, memory.DECODER}
    encoders = sum(part.parameters for part in parts if part.side == "encoders")
    inside = sum(math.prod(w.shape) for w in weights if not w.name.startswith(memory.DECODER))
    assert encoders == inside
    assert dataclasses.replace(weights[0], quantised=False).bytes(memory.PRECISIONS["fp32"]) == 4 * math.prod(
        weights[0].shape
    )
