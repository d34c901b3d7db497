"""Published LF-VILA weights to the models of `videollm.models.lf_vila`; and its beginning from Swin and BERT.

Source: Sun et al., "Long-Form Video-Language Pre-Training with Multimodal Temporal Contrastive Learning" (2022), and
the names that its released code gives to parameters; Liu et al., "Swin Transformer" (2021), for what it begins with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional
from transformers.models.auto.tokenization_auto import AutoTokenizer

from ..errors import ConversionError
from ..models.lf_vila import (
    LfVilaConfig,
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
    LfVilaImageProcessor,
    LfVilaProcessor,
)
from . import beginnings
from .audit import Piece, Plan, Shape, audit
from .checkpoint import Source, inspect, unwrap, without
from .folder import build, staged
from .keymap import Drop, Rule, Take, find, under

WHAT: dict[str, str] = {
    "pretraining": "a checkpoint of pretraining, of either stage",
    "retrieval": "a checkpoint fine-tuned for retrieval",
    "question_answering": "a checkpoint that answers questions with one of a fixed set of answers",
    "multiple_choice": "a checkpoint that chooses an answer",
    "video_classification": "a checkpoint that classifies videos",
    "swin": "a Swin transformer for images, with which LF-VILA begins",
}
"""The kinds of published files."""

MODELS: Mapping[str, Any] = {
    "pretraining": LfVilaForPreTraining,
    "retrieval": LfVilaForRetrieval,
    "question_answering": LfVilaForQuestionAnswering,
    "multiple_choice": LfVilaForMultipleChoice,
    "video_classification": LfVilaForVideoClassification,
}
"""The class of each kind."""

TOKENIZER = "google-bert/bert-base-uncased"


# ---- names


_INDEX = "a constant (which row of the table of biases) that is computed"
_POSITIONS = "a constant (0, 1, 2, ...) that is computed"
_ZEROS = "a constant (zeros) that is computed"
_SECOND_STAGE = "belongs to the second stage of pretraining, which retrieval does not use"
_ONE_BIAS = "the same as text_encoder.cls.predictions.bias"

VIDEO: tuple[Rule, ...] = (
    Take("video_encoder.patch_embed.{part}.{p}", "video_encoder.patch_embed.{part}.{p}"),
    Drop("video_encoder.layers.{n}.blocks.{n1}.attn.relative_position_index", _INDEX),
    Take("video_encoder.layers.{n}.blocks.{n1}.{rest}", "video_encoder.groups.{n}.blocks.{n1}.{rest}"),
    Take("video_encoder.layers.{n}.downsample.{part}.{p}", "video_encoder.groups.{n}.merge.{part}.{p}"),
    Take("video_encoder.norm.{p}", "video_encoder.norm.{p}"),
    Take("video_encoder.norm_local.{p}", "video_encoder.local_norm.{p}"),
    Take("video_encoder.local_feat_proj.{part}.{p}", "video_encoder.local_projection.{part}.{p}"),
)

TEXT: tuple[Rule, ...] = (
    Drop("text_encoder.bert.embeddings.position_ids", _POSITIONS),
    Drop("text_encoder.bert.embeddings.token_type_ids", _ZEROS),
    Drop("sent_embedding.position_ids", _POSITIONS),
    Take("text_encoder.bert.{rest}", "text_encoder.bert.{rest}"),
    Take("sent_embedding.{table}_embeddings.weight", "text_encoder.bridge.{table}_embeddings.weight"),
    Take("sent_embedding.norm.{p}", "text_encoder.bridge.norm.{p}"),
)

PROJECTIONS: tuple[Rule, ...] = (Take("{what}_{reach}_proj.{p}", "{what}_{reach}_projection.{p}"),)

POSITIONS: tuple[Rule, ...] = (
    Take("video_token_pos.s_pos_embed", "video_positions.space"),
    Take("video_token_pos.t_pos_embed", "video_positions.time"),
    Take("video_token_pos.norm.{p}", "video_positions.norm.{p}"),
)

HEADS: tuple[Rule, ...] = (
    Take("text_encoder.cls.predictions.transform.{part}.{p}", "mlm_transform.{part}.{p}"),
    Take("text_encoder.cls.predictions.decoder.weight", "mlm_decoder.weight"),
    Take("text_encoder.cls.predictions.bias", "mlm_decoder.bias"),
    Drop("text_encoder.cls.predictions.decoder.bias", _ONE_BIAS),
    Take("text_encoder.seq_relationship.{p}", "match_head.{p}"),
)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "pretraining": (*VIDEO, *TEXT, *PROJECTIONS, *POSITIONS, *HEADS),
    "retrieval": (
        Drop("text_encoder.bert.pooler.{rest}", _SECOND_STAGE),
        Drop("text_encoder.cls.{rest}", _SECOND_STAGE),
        Drop("text_encoder.seq_relationship.{p}", _SECOND_STAGE),
        *VIDEO,
        *TEXT,
        *PROJECTIONS,
    ),
    "question_answering": (
        *VIDEO,
        *TEXT,
        *POSITIONS,
        Take("text_encoder.classifier.{p}", "classifier.{p}"),
    ),
    "multiple_choice": (
        *VIDEO,
        *TEXT,
        *POSITIONS,
        Take("text_encoder.{head}.{p}", "{head}.{p}"),
    ),
    "video_classification": (*VIDEO, *PROJECTIONS, Take("classifier.{p}", "classifier.{p}")),
}
"""The key map of each kind."""


def recognise(keys: Iterable[str]) -> str | None:
    """The kind of a published file, by the names in it: a key of `WHAT`, or None."""
    keys = {key.removeprefix("module.") for key in keys}
    if "patch_embed.proj.weight" in keys and any(key.startswith("layers.0.blocks.0.attn.") for key in keys):
        return "swin"
    if "video_encoder.patch_embed.proj.weight" not in keys:
        return None
    for sign, kind in (
        ("text_encoder.span_classifier.weight", "multiple_choice"),
        ("text_encoder.classifier.weight", "question_answering"),
        ("video_local_proj.weight", "pretraining"),
        ("text_global_proj.weight", "retrieval"),
        ("classifier.weight", "video_classification"),
    ):
        if sign in keys:
            return kind
    return None


def rules_of(kind: str, keys: Iterable[str]) -> tuple[Rule, ...]:
    """The key map of a kind of published file, in which every key may stand under ``module.``."""
    keys = list(keys)
    rules = RULES[kind]
    if all(key.startswith("module.") for key in keys):
        return under("module.", rules)
    return rules


def wanted(kind: str, config: LfVilaConfig) -> dict[str, Shape]:
    """Names and shapes of the parameters of a model, without making its numbers."""
    with torch.device("meta"):
        model = MODELS[kind](config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def plan(label: str, kind: str, shapes: Mapping[str, Shape], config: LfVilaConfig) -> Plan:
    """The audited plan of a conversion (see `videollm.convert.audit`).

    Args:
        label: of the file, for errors.
        kind: of `MODELS`.
        shapes: of its tensors.
        config: of the model that it makes.

    Raises:
        ConversionError: if it does not make it, all of it and nothing else.
    """
    return audit([Piece(label, rules_of(kind, shapes), shapes)], wanted(kind, config))


def state_dict(published: Mapping[str, Any], config: LfVilaConfig) -> dict[str, torch.Tensor]:
    """Tensors under their published names to the state dict of the model that they are of (see `recognise`).

    Raises:
        ConversionError: for tensors that are of no kind, too many, too few or of another size.
    """
    tensors = unwrap(published)
    kind = recognise(tensors)
    if kind is None or kind not in MODELS:
        raise ConversionError(
            f"keys like {next(iter(tensors), None)!r} are of no LF-VILA model; give a checkpoint of one"
        )
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    return {fill.target: fill.make(tensors.__getitem__) for fill in plan(kind, kind, shapes, config).fills}


def our_name(published: str, kind: str = "pretraining") -> str | None:
    """Our name of a published parameter; None for a key that is dropped.

    Raises:
        ConversionError: for a key that no rule knows.
    """
    place = find(RULES[kind], published)
    if place is None:
        raise ConversionError(f"no rule for the published key {published!r}")
    return None if isinstance(place, Drop) else place.target


def shape_of(kind: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The fields of `LfVilaConfig` that the shapes of a published file show.

    Windows in space, pictures' size and BERT's heads cannot be seen: they are taken to be the published ones, and heads
    to be 64 wide.
    """
    shapes = {key.removeprefix("module."): shape for key, shape in shapes.items()}

    def size(key: str, axis: int) -> int | None:
        return shapes[key][axis] if key in shapes and len(shapes[key]) > axis else None

    def numbered(pattern: str) -> list[tuple[int, ...]]:
        found = (re.fullmatch(pattern, key) for key in shapes)
        return sorted({tuple(int(number) for number in match.groups()) for match in found if match})

    video: dict[str, Any] = {}
    blocks = numbered(r"video_encoder\.layers\.(\d+)\.blocks\.(\d+)\.norm1\.weight")
    groups = sorted({group for group, _ in blocks})
    tables = [f"video_encoder.layers.{group}.blocks.0.attn.relative_position_bias_table" for group in groups]
    if groups and all(len(shapes.get(table, ())) == 2 for table in tables):
        _, rows, columns = LfVilaConfig().video_config.window_sizes[0]
        across = (2 * rows - 1) * (2 * columns - 1)
        video = {
            "depths": [sum(group == other for other, _ in blocks) for group in groups],
            "num_heads": [shapes[table][1] for table in tables],
            "window_sizes": [[(shapes[table][0] // across + 1) // 2, rows, columns] for table in tables],
            "merge_after": [group for (group,) in numbered(r"video_encoder\.layers\.(\d+)\.downsample\.norm\.weight")],
        }
    kernel = shapes.get("video_encoder.patch_embed.proj.weight", ())
    if len(kernel) == 5:
        video |= {"embed_dim": kernel[0], "patch_size": list(kernel[3:])}
    words = "text_encoder.bert.embeddings.word_embeddings.weight"
    width = size(words, 1)
    layers = numbered(r"text_encoder\.bert\.encoder\.layer\.(\d+)\.output\.dense\.weight")
    text = {
        "vocab_size": size(words, 0),
        "hidden_size": width,
        "num_attention_heads": max(width // 64, 1) if width else None,
        "max_position_embeddings": size("text_encoder.bert.embeddings.position_embeddings.weight", 0),
        "type_vocab_size": size("text_encoder.bert.embeddings.token_type_embeddings.weight", 0),
        "intermediate_size": size("text_encoder.bert.encoder.layer.0.intermediate.dense.weight", 0),
        "num_hidden_layers": len(layers) or None,
    }
    heads = {"question_answering": "text_encoder.classifier.weight", "video_classification": "classifier.weight"}
    fields = {
        "max_sentences": size("sent_embedding.segment_embeddings.weight", 0),
        "num_frames": size("video_token_pos.t_pos_embed", 1),
        "num_answers": size(heads[kind], 0) if kind in heads else None,
    }
    text, fields = ({key: value for key, value in part.items() if value is not None} for part in (text, fields))
    parts = {"video_config": video, "text_config": text}
    return fields | {name: part for name, part in parts.items() if part}


# ---- from files to a folder


def convert(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    config: str | Path | None = None,
    drop: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """A published file to a folder that ``from_pretrained`` takes, with its processor.

    The model says ``as_published``: its weights have learned to live with what is listed in `LfVilaConfig`.

    Args:
        paths: a checkpoint of any kind of `MODELS`; or a Swin transformer and the folder of BERT, for a model to begin
            pretraining with; or the folders of a model of the first stage and of BERT, for the second to begin with;
            and, if wanted, ``vocab.txt`` or the folder of BERT's uncased tokenizer, which is looked
            for in the hub's cache otherwise.
        out: the folder to make; it must not be there yet.
        config: a JSON file with fields of `LfVilaConfig`, where the file does not show the shape (see `shape_of`).
        drop: patterns (``*`` is anything) of published keys to leave out.
        dtype: of the weights; None: as in their file.
        say: takes lines for the user.

    Raises:
        ConversionError: in one line, what is missing, too much or damaged; nothing is left behind.
    """
    files = [Path(path).expanduser() for path in paths]
    kinds = {beginnings.model_type(path): path for path in files}
    if set(kinds) == {"lf_vila", "bert"}:
        if drop or config:
            raise ConversionError("--drop and --config are for published LF-VILA files; leave them out")
        return beginnings.second_stage(kinds["lf_vila"], kinds["bert"], Path(out), dtype, say)
    words = [path for path in files if path.is_dir() or path.name == "vocab.txt"]
    weights = [path for path in files if path not in words]
    if len(weights) != 1 or len(words) > 1:
        raise ConversionError(
            f"LF-VILA is one file of weights and, if wanted, one folder (or vocab.txt) of BERT's tokenizer; found "
            f"{len(weights)} and {len(words)}"
        )
    source = Source(weights[0].name, "lf_vila", inspect(weights[0]))
    kind = recognise(source.checkpoint.shapes)
    if kind is None:
        key = next(iter(source.checkpoint.shapes), "nothing")
        raise ConversionError(
            f"{weights[0]} (it holds {key}, ...) is no file of LF-VILA; give {'; '.join(WHAT.values())}"
        )
    given = _given(config)
    if kind == "swin":
        if drop:
            raise ConversionError("--drop is for published LF-VILA files; leave it out")
        return _begin(source, words, Path(out), given, dtype, say)
    source.kind = kind
    fields = {"as_published": True, **_joined(shape_of(kind, source.checkpoint.shapes), given)}
    shape = _config(fields, config)
    processor = _processor(kind, shape, words)
    shapes, left_out = without([source], drop)
    made = plan(source.label, kind, shapes[source.label], shape)
    say(f"{source.label}: {WHAT[kind]}")

    def save(folder: Path) -> None:
        processor.save_pretrained(folder)
        shape.architectures = [MODELS[kind].__name__]
        shape.dtype = dtype or torch.float32
        shape.save_pretrained(folder)

    facts = {"family": "lf-vila", "kind": kind}
    return build(Path(out), [source], made, save, facts=facts, left_out=left_out, dtype=dtype, say=say)


def _given(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConversionError(f"the shape in {file} cannot be read ({error}); give a JSON object") from error


def _joined(seen: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    parts = {name: {**seen.get(name, {}), **dict(given.get(name) or {})} for name in ("video_config", "text_config")}
    return {**seen, **given, **{name: part for name, part in parts.items() if part}}


def _config(fields: dict[str, Any], file: str | Path | None) -> LfVilaConfig:
    try:
        return LfVilaConfig(**fields)
    except (ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(
            f"the file and {file or 'the published shape'} make no model ({reason}); describe it with --config"
        ) from error


def _processor(kind: str, config: LfVilaConfig, words: Sequence[Path]) -> LfVilaProcessor | LfVilaImageProcessor:
    images = LfVilaImageProcessor(size=list(config.video_config.image_size), as_published=config.as_published)
    if kind == "video_classification":
        return images
    sentences = config.num_clips if kind in ("pretraining", "retrieval") else config.max_sentences
    return LfVilaProcessor(images, _tokenizer(words, config), sentences, config.max_sentence_tokens, config.num_frames)


def _tokenizer(words: Sequence[Path], config: LfVilaConfig) -> Any:
    from transformers.models.bert.tokenization_bert import BertTokenizer

    try:
        if words and words[0].is_file():
            tokenizer: Any = BertTokenizer(vocab=str(words[0]), do_lower_case=True)
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                words[0] if words else TOKENIZER, local_files_only=bool(words), trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        where = words[0] if words else f"the hub ({TOKENIZER})"
        raise ConversionError(
            f"BERT's uncased tokenizer is not to be had from {where}; give its folder, or its vocab.txt, too"
        ) from error
    if len(tokenizer) > config.text_config.vocab_size:
        raise ConversionError(
            f"the tokenizer has {len(tokenizer)} words, the model {config.text_config.vocab_size}; give the one that "
            f"belongs to it"
        )
    return tokenizer


# ---- the beginning: an image transformer and BERT


def swin_state_dict(published: Mapping[str, Any], config: LfVilaConfig) -> dict[str, torch.Tensor]:
    """A Swin transformer for images to the video encoder that pretraining begins with.

    Blocks are taken in order, whatever stage they are in; patch merges likewise. A kernel of smaller patches is
    repeated over a larger patch and divided by how often. Tables of biases are resized (bicubic) to the window's rows
    and columns and repeated for every offset in time. The local features begin as a copy of the last merge and norm.

    Args:
        published: what the file holds, float.
        config: of the model.

    Returns:
        float32 tensors by our names of a `LfVilaVideoEncoder`, all of them.

    Raises:
        ConversionError: for another number of blocks, or other widths.
    """
    tensors = {key: value.float() for key, value in unwrap(published).items() if value.is_floating_point()}
    shape = config.video_config
    blocks = sorted(
        {
            (int(match[1]), int(match[2]))
            for key in tensors
            if (match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key))
        }
    )
    merges = sorted({int(match[1]) for key in tensors if (match := re.match(r"layers\.(\d+)\.downsample\.", key))})
    if len(blocks) != sum(shape.depths) or len(merges) != len(shape.merge_after):
        raise ConversionError(
            f"the Swin transformer has {len(blocks)} blocks and {len(merges)} merges, the video encoder "
            f"{sum(shape.depths)} and {len(shape.merge_after)}; give the one that its depths were made for"
        )

    made: dict[str, torch.Tensor] = {}
    kernel = tensors["patch_embed.proj.weight"]
    times = [size // have for size, have in zip(shape.patch_size, kernel.shape[2:], strict=True)]
    made["patch_embed.proj.weight"] = kernel.repeat(1, 1, *times)[:, :, None] / (times[0] * times[1])
    made |= {
        f"patch_embed.{name}": tensors[f"patch_embed.{name}"] for name in ("proj.bias", "norm.weight", "norm.bias")
    }
    places = [(group, block) for group, depth in enumerate(shape.depths) for block in range(depth)]
    for (stage, number), (group, block) in zip(blocks, places, strict=True):
        theirs, ours = f"layers.{stage}.blocks.{number}.", f"groups.{group}.blocks.{block}."
        for key, value in tensors.items():
            if key.startswith(theirs) and not key.endswith("attn_mask"):
                name = key.removeprefix(theirs)
                if name.endswith("relative_position_bias_table"):
                    value = _table_over_time(value, shape.window_sizes[group])
                made[ours + name] = value
    for stage, group in zip(merges, sorted(shape.merge_after), strict=True):
        for name in ("reduction.weight", "norm.weight", "norm.bias"):
            made[f"groups.{group}.merge.{name}"] = tensors[f"layers.{stage}.downsample.{name}"]
            made[f"local_projection.{name}"] = tensors[f"layers.{stage}.downsample.{name}"].clone()
    for name in ("weight", "bias"):
        made[f"norm.{name}"] = tensors[f"norm.{name}"]
        made[f"local_norm.{name}"] = tensors[f"norm.{name}"].clone()
    return made


def _table_over_time(table: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Biases ``((2s - 1)^2, heads)`` of square windows to those of windows of space and time."""
    side, heads = round(len(table) ** 0.5), table.shape[1]
    size = (2 * window[1] - 1, 2 * window[2] - 1)
    if (side, side) != size:
        image = table.T.reshape(1, heads, side, side)
        table = functional.interpolate(image, size, mode="bicubic")[0].flatten(1).T
    return table.repeat(2 * window[0] - 1, 1)


def resize_windows(
    state: Mapping[str, torch.Tensor], old: Sequence[Sequence[int]], new: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """Tables of biases for windows of another length, e.g. to go on with more frames; all other tensors as they are.

    Source: the released code, which also rounds the result to half precision; here it keeps its dtype.

    Args:
        state: tensors by our names, of a model or its video encoder.
        old, new: the windows of each group: frames, rows and columns; rows and columns must be equal.

    Raises:
        ConversionError: for windows of other rows or columns.
    """
    resized = dict(state)
    for key, table in state.items():
        match = re.search(r"groups\.(\d+)\.blocks\.\d+\.attn\.relative_position_bias_table$", key)
        if match is None:
            continue
        before, after = old[int(match[1])], new[int(match[1])]
        if list(before[1:]) != list(after[1:]):
            raise ConversionError(f"{key}: windows can be resized in time only, found {list(before)} and {list(after)}")
        if before[0] != after[0]:
            image = table.reshape(1, 2 * before[0] - 1, -1, table.shape[1]).permute(0, 3, 1, 2)
            size = (2 * after[0] - 1, image.shape[3])
            image = functional.interpolate(image.float(), size, mode="bicubic")
            resized[key] = image[0].flatten(1).T.to(table.dtype).contiguous()
    return resized


def _begin(
    source: Source,
    words: Sequence[Path],
    out: Path,
    given: dict[str, Any],
    dtype: torch.dtype | None,
    say: Callable[[str], None],
) -> Path:
    """The model that the first stage of pretraining begins with: Swin and the first layers of BERT."""
    from transformers.models.bert.modeling_bert import BertModel

    if not words or not words[0].is_dir():
        raise ConversionError(f"{source.label} is {WHAT['swin']}; give the folder of BERT (bert-large-uncased), too")
    try:
        bert: Any = BertModel.from_pretrained(words[0], local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConversionError(f"{words[0]} holds no BERT ({reason}); give the folder of bert-large-uncased") from error
    defaults = LfVilaConfig()
    sentence = int(given.get("sentence_layers", defaults.sentence_layers))
    paragraph = int(given.get("paragraph_layers", defaults.paragraph_layers))
    text = {**bert.config.to_dict(), "num_hidden_layers": sentence + paragraph}
    shape = _config({**given, "text_config": text}, None)
    processor = _processor("pretraining", shape, words)
    torch.manual_seed(0)
    model: Any = LfVilaForPreTraining(shape)
    with source.checkpoint.open() as read:
        tensors = {key: read(key) for key in source.checkpoint.shapes}
    video = swin_state_dict(tensors, shape)
    held = bert.state_dict()
    kept = {name: held[name] for name in model.text_encoder.bert.state_dict() if name in held}
    try:
        model.video_encoder.load_state_dict(video, strict=True)
        model.text_encoder.bert.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"{source.label} and {words[0]} do not fit the model ({reason})") from error
    with torch.no_grad():
        table = model.text_encoder.bert.embeddings.position_embeddings.weight
        model.text_encoder.bridge.position_embeddings.weight.copy_(table)
    model.to(dtype=dtype or torch.float32)
    with staged(out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        facts = {"family": "lf-vila", "kind": "beginning", "sources": [source.label, str(words[0])]}
        (folder / "conversion.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    new = sum(p.numel() for p in model.parameters()) - sum(v.numel() for v in (*video.values(), *kept.values()))
    say(f"{source.label} and {len(kept)} tensors of {words[0].name}; {new:,} parameters begin at random")
    return out
