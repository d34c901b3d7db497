"""`videollm doctor [DIR]`: what this machine has and which models fit it; of a folder, whether it is whole and answers.

A folder may be of a chat model, or of one of LaViLa's, LF-VILA's or ImageBind's.

Exit code 0: all is well; 1: something is wrong, each fault a line that begins with FAULT; 2: no folder of a model.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from videollm.models.checkup import Checkup
    from videollm.models.families import FamilyFolder

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "av", "accelerate", "bitsandbytes", "decord")
QUESTION = "What do you see?"
ANSWER_TOKENS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="NAME|DIR", help="a model to check: `tiny`, or a folder")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...; default: the best there is")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="let the model answer quantised")
    parser.add_argument("--quick", action="store_true", help="check the files only, without an answer")


def run(args: argparse.Namespace) -> int:
    from videollm.cli.chat import quiet

    quiet()
    from videollm.models import hub

    device = hub.choose_device(args.device)
    faults = 0
    if args.folder is not None:
        faults += folder(args.folder, device, args.bits, args.quick)
        print()
    faults += machine(device)
    return 1 if faults else 0


def machine(device: torch.device) -> int:
    """Says what is installed, what there is to compute with, and what fits; returns the number of faults."""
    import os
    import platform
    from importlib import metadata

    import torch

    import videollm
    from videollm.models import memory

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    print(f"videollm {videollm.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        print("accelerator: " + ", ".join(f"cuda:{i} {name}" for i, name in enumerate(names)))
    else:
        print(f"accelerator: {'mps' if torch.backends.mps.is_available() else 'none'}, {os.cpu_count()} CPU cores")
    faults = decoders()
    places = [device] if device.type == "cpu" else [device, torch.device("cpu")]
    for place in places:
        free = memory.free_bytes(place)
        print(f"free memory, {place}: {'unknown' if free is None else f'{free / memory.GIB:.1f} GiB'}")
    presets(places)
    return faults


def decoders() -> int:
    """Reads a bundled clip with each decoder that is installed."""
    import importlib.util

    from videollm.errors import MediaError
    from videollm.media.decode_worker import open_clip
    from videollm.media.sampling import FrameSampling

    faults = 0
    for decoder, package in (("pyav", "av"), ("decord", "decord")):
        if importlib.util.find_spec(package) is None:
            print(f"decoder {decoder}: not installed")
            continue
        try:
            clip = open_clip(bundled_clip(), frames=FrameSampling("uniform", frames=2), decoder=decoder)
            assert clip.frames is not None
            print(f"decoder {decoder}: reads {clip.name}, {len(clip.frames)} frames")
        except MediaError as error:
            faults += fault(f"decoder {decoder}: {error}")
    return faults


def presets(places: list[torch.device]) -> None:
    """Says which models fit where, in which precision."""
    from videollm.models import hub, memory
    from videollm.models.video_llama import VideoLlamaConfig

    print(f"{'GiB with an 8-frame clip':<26}" + "".join(f"{name:>14}" for name in memory.OFFERED))
    for name in ("tiny", "7b", "13b"):
        config = hub.read_config(hub.find(name)) if name == "tiny" else VideoLlamaConfig.preset(name)
        weights = memory.weights_of(memory.empty_model(config))
        for place in places:
            cells = []
            for precision in memory.OFFERED:
                plan = memory.plan(config, precision, model=name, weights=weights)
                cells.append(f"{plan.total_bytes / memory.GIB:.2f} {'fits' if memory.fits(plan, place) else 'no':<4}")
            print(f"{f'{name} on {place}':<26}" + "".join(f"{cell:>14}" for cell in cells))


def folder(name: str, device: torch.device, bits: int | None, quick: bool) -> int:
    """Checks a folder and lets its model say something; returns the number of faults."""
    from videollm.models import memory
    from videollm.models.checkup import check_folder, licences

    found = check_folder(name)
    kept = f"{found.bits} bits" if found.bits else "full precision"
    print(
        f"{found.folder}: {found.parameters / 1e6:,.1f} M parameters in {found.tensors} tensors of {kept}, "
        f"{found.weights_bytes / memory.GIB:.2f} GiB"
    )
    faults = sum(fault(problem) for problem in found.problems)
    if not found.problems:
        print("every key and every shape is that of the config; the processor loads")
    if found.family is not None:
        return faults + family(found.family, device, quick or bool(found.problems))
    for licence in licences(found.config):
        print(f"licence of {licence.part}: {licence.text}")
    if not licences(found.config):
        print("licence: no part has the shape of a published model; see the folder's model card")
    if quick or found.problems:
        return faults
    return faults + answer(name, found, device, bits)


def family(found: FamilyFolder, device: torch.device, files_only: bool) -> int:
    """Says what a model of LaViLa or LF-VILA takes, and lets it work once; returns the number of faults."""
    from videollm.errors import VideoLLMError
    from videollm.models import memory
    from videollm.models.family_memory import plan_family

    print(f"it is {found.what}")
    free = memory.free_bytes(device)
    for plan in plan_family(found):
        room = "unknown whether it fits" if free is None else "fits" if plan.total_bytes <= free else "does not fit"
        print(f"{plan.summary}: {room} {device}")
    if found.model_type == "imagebind":
        print("licence: ImageBind's weights are CC BY-NC-SA 4.0 (not commercial); of others see where they came from")
    else:
        print(
            "licence: LaViLa's and LF-VILA's code is MIT; of weights see where they came from, and their training data"
        )
    if files_only:
        return 0
    try:
        said = try_family(found, device)
    except (VideoLLMError, ValueError) as error:
        return fault(f"it does not work: {error}")
    print(f"tried on {bundled_clip().name}: {said}")
    return 0


def try_family(found: FamilyFolder, device: torch.device) -> str:
    """What a model makes of the bundled clip, in words.

    Raises:
        VideoLLMError: it cannot be loaded, or makes numbers that are not finite.
        ValueError: it and its processor do not go together.
    """
    import torch

    from videollm.errors import ModelNotFoundError
    from videollm.media.decode_worker import open_clip
    from videollm.media.sampling import FrameSampling
    from videollm.models import families

    words = "A red circle moves."
    if found.model_type == "t5":
        from videollm.tools.narrators import load_rephraser

        (said,) = load_rephraser(found.folder, device=str(device)).rephrase([words], 1, groups=2)
        return f"of {words!r} it makes {said}"
    if found.model_type == "lavila_narrator":
        from videollm.tools.narrators import load_narrator

        narrator = load_narrator(found.folder, device=str(device))
        ((one,),) = narrator.describe([open_clip(bundled_clip(), frames=narrator.frames)], 1, 0)
        return f"it says: {one.text!r}"
    if found.model_type == "imagebind":
        return _hear(found, device)
    model, processor = families.load(found.folder, device=device)
    images = getattr(processor, "image_processor", processor)
    config = found.config
    count = int(config.num_frames if found.model_type == "lf_vila" else config.vision_config.num_frames)
    clip = open_clip(bundled_clip(), frames=FrameSampling("centre", frames=count))
    assert clip.frames is not None
    pixels = images(clip.frames.pixels[[k * len(clip.frames) // count for k in range(count)]])
    inputs = {"pixel_values": pixels[None].to(model.device, model.dtype)}
    name = found.model_class.__name__
    if name == "LavilaDualEncoder":
        inputs |= {key: value.to(model.device) for key, value in processor.texts([words]).items()}
    elif found.model_type == "lf_vila" and name != "LfVilaForVideoClassification":
        batch = processor.encode_sentences([[words]])
        choices = name == "LfVilaForMultipleChoice"
        inputs |= {key: (value[None] if choices else value).to(model.device) for key, value in batch.items()}
    with torch.inference_mode():
        made = model(**inputs)
    scores, vectors = made.get("logits"), made.get("video_embeds")
    if scores is not None:
        heads = scores if isinstance(scores, tuple) else (scores,)
        told, kept = ", ".join(f"class {int(one[0].argmax())} of {one.shape[-1]}" for one in heads), heads
    else:
        similarity = (vectors @ made["text_embeds"].T).item()
        told, kept = f"its vector of {vectors.shape[-1]}, cosine {similarity:.3f} to {words!r}", (vectors,)
    if not all(bool(torch.isfinite(one).all()) for one in kept):
        raise ModelNotFoundError(f"the model in {found.folder} makes numbers that are not finite; convert it again")
    return told


def _hear(found: FamilyFolder, device: torch.device) -> str:
    """What ImageBind makes of the sound of the bundled clip."""
    import numpy as np

    from videollm.errors import ModelNotFoundError
    from videollm.media.decode_worker import open_clip
    from videollm.moments.sound import load_sound_encoder

    words = "beeps"
    encoder = load_sound_encoder(found.folder, str(device))
    (heard,) = encoder.clips([open_clip(bundled_clip(), sound=encoder.sound)])
    assert heard is not None  # the bundled clip has a sound track
    similarity = float(heard @ encoder.words(words))
    if not np.isfinite(similarity):
        raise ModelNotFoundError(f"the model in {found.folder} makes numbers that are not finite; convert it again")
    return f"its vector of {encoder.width} of the clip's sound, cosine {similarity:.3f} to {words!r}"


def answer(name: str, found: Checkup, device: torch.device, bits: int | None) -> int:
    """Lets the model answer about a bundled clip; returns the number of faults."""
    from videollm.chat.session import ChatSession
    from videollm.errors import VideoLLMError
    from videollm.models import hub

    try:
        bits = bits or fitting_bits(found, device)
        model, processor = hub.load(name, device=device, bits=bits)
        session = ChatSession(model, processor, max_new_tokens=ANSWER_TOKENS)
        session.add(bundled_clip())
        said = session.ask(QUESTION)
    except VideoLLMError as error:
        return fault(f"no answer: {error}")
    if not said.token_ids:
        return fault("no answer: the model said nothing")
    how = f" in {bits} bits" if bits else ""
    print(f"asked{how} about {bundled_clip().name}: {QUESTION!r}; it says: {said.text!r}")
    return 0


def fitting_bits(found: Checkup, device: torch.device) -> int | None:
    """None where the model fits as it is, or cannot be quantised; else the first of 8 and 4 bits that fits."""
    import importlib.util

    from videollm.models import memory

    weights = memory.weights_of(memory.empty_model(found.config))

    def fits(precision: str) -> bool:
        return memory.fits(memory.plan(found.config, precision, weights=weights), device)

    whole = "fp32" if device.type == "cpu" else "bf16"
    if found.bits or fits(whole) or importlib.util.find_spec("bitsandbytes") is None:
        return None
    return next((bits for bits in (8, 4) if fits(f"{bits}-bit")), None)


def bundled_clip() -> Any:
    """A clip of the package."""
    from pathlib import Path

    return Path(__file__).resolve().parents[1] / "assets" / "clips" / "two_things.mp4"


def fault(text: str) -> int:
    """Says what is wrong; returns 1, to be counted."""
    from videollm.cli.main import one_line

    print(one_line(f"FAULT: {text}"))
    return 1
