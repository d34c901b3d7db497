"""LaViLa's models at a size for tests, as folders that runs start from, and clips to learn from."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from tests.models.lavila.small import BERT_TEXT, GPT2_TEXT, VISION, shaken
from videollm.media.write import write_video
from videollm.models.lavila import (
    LavilaClassifierConfig,
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaForVideoClassification,
    LavilaImageProcessor,
    LavilaNarrator,
    LavilaNarratorConfig,
    LavilaProcessor,
)

STILL = {"dropout": 0.0, "attention_dropout": 0.0}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "paraphrase:", "a", "red", "blue", "circle", "square", "rolls", "stops")
TEXTS = ("a red circle rolls", "a blue square stops", "a red square rolls", "a blue circle stops")


def tokenizer():
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def _saved(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def images():
    return LavilaImageProcessor(size=16, num_frames=3)


def write_dual_encoder(folder, **text):
    config = LavilaDualEncoderConfig(
        vision_config=VISION, text_config={**BERT_TEXT, **STILL, **text}, projection_dim=20
    )
    model = shaken(LavilaDualEncoder, config)
    return _saved(folder, model, LavilaProcessor(images(), tokenizer(), "bert", 12))


def write_narrator(folder):
    fields = {"num_query_tokens": 5, "pool_head_dim": 8, "cross_attention_frequency": 2, "max_text_tokens": 12}
    text = {**GPT2_TEXT, "bos_token_id": 2, "eos_token_id": 3, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = shaken(LavilaNarrator, LavilaNarratorConfig(vision_config=VISION, text_config=text, **fields), seed=1)
    words = tokenizer()
    words.bos_token, words.eos_token = "[CLS]", "[SEP]"
    return _saved(folder, model, LavilaProcessor(images(), words, "gpt2", 12))


def write_rephraser(folder):
    config = T5Config(
        vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0, pad_token_id=0,
        eos_token_id=3, decoder_start_token_id=0,
    )  # fmt: skip
    return _saved(folder, T5ForConditionalGeneration(config), tokenizer())


def write_classifier(folder):
    model = shaken(LavilaForVideoClassification, LavilaClassifierConfig(vision_config=VISION, num_classes=(3, 2)))
    return _saved(folder, model, images())


def write_clips(folder, count=4):
    """Clips of noise, each with two texts; sentences with others; and classes."""
    folder = Path(folder)
    folder.mkdir()
    draw = np.random.default_rng(0)
    lines = {"clips": [], "pairs": [], "classes": []}
    for number in range(count):
        write_video(folder / f"{number}.mp4", draw.integers(0, 256, (6, 24, 32, 3), dtype=np.uint8), fps=4)
        shown, media = [{"type": "video", "clip": "it"}], {"it": {"path": f"{number}.mp4"}}
        said = [TEXTS[number % 4], TEXTS[(number + 1) % 4]]
        for name, user, texts in (
            ("clips", shown, said),
            ("pairs", [{"type": "text", "text": said[0]}], said[1:]),
            ("classes", shown, [f"{number % 3} {number % 2}"]),
        ):
            messages = [{"role": "user", "parts": user}]
            messages += [{"role": "assistant", "parts": [{"type": "text", "text": text}]} for text in texts]
            line = {"id": str(number), "messages": messages, "media": {} if name == "pairs" else media}
            lines[name].append(json.dumps(line))
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(found), encoding="utf-8")
    return folder


def given(count=8):
    """What a program hands over: clips without a file."""
    draw = np.random.default_rng(1)
    return [
        {"pixels": draw.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8), "texts": (TEXTS[n % 4], "a red circle"),
         "is_human": n % 2 == 0}
        for n in range(count)
    ]  # fmt: skip
