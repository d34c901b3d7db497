"""Time to the first word at turn 10: keys and values of earlier turns reused, against computed anew.

Both sessions hold the same ten turns about the same clip, whose features are at hand in both; they take turns in asking
the tenth question, so that a busy machine is busy for both, and must give the same answer. The model is that of
midsize.json with random weights: the work of its encoder on a frame and of its decoder on a token stand in the
proportion of EVA ViT-g (257 tokens a frame) and a 7B decoder, which is printed too.

    python scripts/bench/turns.py [--rounds N] [--threads N]
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from videollm.chat.cache import EncodedMedia
from videollm.chat.session import ChatSession
from videollm.clips import Clip, Frames
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from videollm.models.video_llama.tiny_tokenizer import SPECIAL_TOKENS, build_tiny_tokenizer

GOAL = 5.0
TURNS = 10
ANSWER_TOKENS = 32
QUESTION = "What happens in the video after the {} scene, and how does the colour of the shape in the middle change?"
VIT_G_PARAMETERS, DECODER_7B_PARAMETERS = 39 * (4 * 1408**2 + 2 * 1408 * 6144), 32 * (4 * 4096**2 + 3 * 4096 * 11008)


def midsize() -> tuple[VideoLlamaForConditionalGeneration, VideoLlamaProcessor]:
    """The model of midsize.json, with a small vocabulary of its own, and its processor."""
    shape = json.loads((Path(__file__).parent / "midsize.json").read_text())
    tokenizer = build_tiny_tokenizer([QUESTION], 400)
    ids = {name.strip("<>"): tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    special = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")}
    shape["text_config"] |= special
    config = VideoLlamaConfig(**shape, **special, video_token_id=ids["video"], audio_token_id=ids["audio"])
    torch.manual_seed(0)
    model = VideoLlamaForConditionalGeneration(config).eval()
    # No answer may end early: all turns are to be equally long in every run.
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    processor = VideoLlamaProcessor.for_model(
        config, tokenizer, template="tiny", separate_text=True, time_sentence=False
    )
    return model, processor


def layer_parameters(layers: torch.nn.Module) -> int:
    """Parameters that every token passes: what the work on a token is proportional to."""
    return sum(p.numel() for p in layers.parameters() if p.ndim >= 2)


def proportion(model: VideoLlamaForConditionalGeneration) -> str:
    """Encoder parameters as a share of decoder parameters, here and published; both at 257 tokens a frame."""
    encoder = layer_parameters(model.vision_model.encoder)
    decoder = layer_parameters(model.language_model.model.layers)
    published = VIT_G_PARAMETERS / DECODER_7B_PARAMETERS
    return (
        f"encoder {encoder / 1e6:.1f} M, decoder {decoder / 1e6:.1f} M: 1 to {decoder / encoder:.1f} "
        f"(ViT-g and 7B: 1 to {1 / published:.1f})"
    )


def noise_clip() -> Clip:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    return Clip("noise.mp4", "video", "noise", 8.0, Frames(pixels, np.arange(8.0), 8.0))


def first_word_seconds(session: ChatSession, question: str) -> float:
    """Asks for an answer of one token, and says how long that took: random weights make no words to wait for."""
    start = time.perf_counter()
    session.ask(question, max_new_tokens=1)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model, processor = midsize()
    print(proportion(model))

    encoded = EncodedMedia()
    with_reuse = ChatSession(model, processor, max_new_tokens=ANSWER_TOKENS, encoded=encoded)
    with_reuse.add(noise_clip())
    for turn in range(1, TURNS):
        with_reuse.ask(QUESTION.format(turn))
    without = ChatSession(model, processor, max_new_tokens=ANSWER_TOKENS, encoded=encoded, reuse_cache=False)
    without.add(noise_clip())
    without.messages = with_reuse.messages

    last = QUESTION.format(TURNS)
    seconds: dict[str, list[float]] = {"reuse": [], "anew": []}
    for round_number in range(args.rounds + 1):  # the first round warms up
        for name, session in (("reuse", with_reuse), ("anew", without)):
            taken = first_word_seconds(session, last)
            if round_number:
                seconds[name].append(taken)
        answers = with_reuse.last, without.last
        assert answers[0] is not None and answers[1] is not None
        if answers[0].token_ids != answers[1].token_ids:
            sys.exit("the two ways gave different answers: nothing was measured")
        timings = {name: answer.timings for name, answer in zip(seconds, answers, strict=True)}
        with_reuse.undo()
        without.undo()
        # Undo left the tenth turn in the cache; asked again, it would be found there. One other question drops it.
        with_reuse.ask("Why?", max_new_tokens=1)
        with_reuse.undo()

    for name, taken in seconds.items():
        print(
            f"turn {TURNS}, {name:<5}: first word after {statistics.median(taken):.3f} s "
            f"[{min(taken):.3f}-{max(taken):.3f}], {timings[name].prefilled_tokens} of "
            f"{timings[name].prompt_tokens} tokens prefilled, {timings[name].encoded_clips} clips encoded"
        )
    ratios = [anew / reuse for anew, reuse in zip(seconds["anew"], seconds["reuse"], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"ratio {ratio:.1f} [{min(ratios):.1f}-{max(ratios):.1f}] over {args.rounds} rounds; "
        f"goal {GOAL:.0f}: {'met' if ratio >= GOAL else 'MISSED'}"
    )
    sys.exit(ratio < GOAL)


if __name__ == "__main__":
    main()
