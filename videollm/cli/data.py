"""``videollm data (validate | convert | shard)``: a dataset looked over, put into our schema, packed into shards."""

from __future__ import annotations

import argparse

PUBLISHED = (
    "webvid", "llava_cc3m", "minigpt4", "llava_instruct", "videochat", "lavila_narrations", "howto100m",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs within the verb, each with its flags."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    validate = verbs.add_parser(
        "validate",
        help="read every sample, decode its media, and say what is in the file and what is wrong with it",
        description="Read every sample of a JSONL file, decode its media, and say what is in it and what is wrong. "
        "Exit code 0: all samples are good; 1: some are bad (each is named by its line, with a reason); 2: the file "
        "cannot be read.",
    )
    validate.add_argument("file", metavar="FILE.jsonl", help="samples in our schema")
    validate.add_argument("--model", default="tiny", metavar="NAME|DIR", help="whose tokens count; default: tiny")
    validate.add_argument("--workers", type=int, metavar="N", help="files decoded at once; default: all processors")
    validate.add_argument("--picture", metavar="FILE.png", help="of the distributions; default: FILE.jsonl.png")
    validate.add_argument("--no-picture", action="store_true", help="write none")
    validate.add_argument("--json", action="store_true", help="the report as one JSON object")

    shard = verbs.add_parser(
        "shard",
        help="pack samples and their media into tar files for streaming; an interrupted run goes on where it stopped",
        description="Pack the samples of a JSONL file and their media into webdataset tars with an index. An "
        "interrupted or killed run goes on where it stopped. Exit code 0: all samples are in the shards; 1: some were "
        "left out (each is named by its line, with a reason); 2: it could not be done.",
    )
    shard.add_argument("file", metavar="FILE.jsonl", help="samples in our schema")
    shard.add_argument("--out", required=True, metavar="FOLDER", help="of the shards; made if need be")
    shard.add_argument("--shard-size", type=int, metavar="N", help="samples in one shard; default: 500")
    shard.add_argument("--workers", type=int, metavar="N", help="shards written at once; default: all processors")
    shard.add_argument(
        "--whole", action="store_true", help="keep whole files beside a sample's start and end; default: cut them"
    )

    convert = verbs.add_parser(
        "convert",
        help="write a published dataset as JSONL in our schema",
        description="Write a published dataset as JSONL in our schema, whole or not at all; media are looked up, not "
        "opened. Exit code 0: all annotations are in it; 1: some were left out (each is named, with a reason); 2: it "
        "could not be done.",
    )
    convert.add_argument("format", metavar="FORMAT", choices=PUBLISHED, help=f"one of {', '.join(PUBLISHED)}")
    convert.add_argument(
        "file", metavar="FILE", help="the annotations; a folder of tables (webvid), or of all (llava_cc3m, minigpt4)"
    )
    convert.add_argument("--out", required=True, metavar="FILE.jsonl", help="in the folder of the media, or above it")
    convert.add_argument("--media", default="", metavar="FOLDER", help="of the videos or pictures")
    convert.add_argument("--name", default="", help="of the dataset, written into each sample; default: its format")
    convert.add_argument(
        "--requests", action="store_true", help="put the published requests before captions (llava_cc3m, minigpt4)"
    )
    convert.add_argument(
        "--together", action="store_true", help="all narrations of a stretch in one sample (lavila_narrations)"
    )
    convert.add_argument("--as-published", action="store_true", help="clean captions with the published slips (webvid)")


def run(args: argparse.Namespace) -> int:
    """Do it.

    Raises:
        VideoLLMError: a file, a folder or a flag that cannot be used.
    """
    return {"validate": _validate, "convert": _convert, "shard": _shard}[args.what](args)


def _validate(args: argparse.Namespace) -> int:
    import json

    from videollm.cli.chat import quiet
    from videollm.errors import ConfigError

    if args.picture and args.no_picture:
        raise ConfigError("--picture and --no-picture exclude each other; give one of them")
    quiet()
    from videollm.data.validate import draw, validate

    report = validate(args.file, model=args.model, workers=args.workers)
    told = report.to_dict()
    if not args.no_picture:
        told["picture"] = str(draw(report, args.picture or f"{args.file}.png"))
    if args.json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        print("\n".join(report.lines()))
        if "picture" in told:
            print(f"picture: {told['picture']}")
    return 1 if report.problems else 0


def _convert(args: argparse.Namespace) -> int:
    from videollm.cli.chat import quiet
    from videollm.errors import ConfigError

    quiet()
    from videollm.data.convert import convert
    from videollm.data.datasets import Dataset

    try:
        dataset = Dataset(
            args.format, args.file, args.media, name=args.name, requests=args.requests, as_published=args.as_published,
            together=args.together,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(str(error).replace("add the key 'media'", "give it with --media")) from None
    report = convert(dataset, args.out)
    for _, line in report.left_out:
        print(f"left out: {line}")
    why = f" ({report.reasons()})" if report.left_out else ""
    print(f"{report.samples:,} samples, {len(report.left_out):,} left out{why}: {args.out}")
    print(f"in a recipe: format: jsonl, path: {args.out}, form: {dataset.learned_as}")
    return 1 if report.left_out else 0


def _shard(args: argparse.Namespace) -> int:
    from videollm.data.shards import SHARD_SIZE, write_shards

    size = SHARD_SIZE if args.shard_size is None else args.shard_size
    report = write_shards(args.file, args.out, shard_size=size, workers=args.workers, whole=args.whole)
    for line, reason in report.left_out:
        print(f"line {line}: left out: {reason}")
    before = f" ({report.found} of them were there)" if report.found else ""
    print(
        f"{report.samples:,} samples, {report.size_bytes:,} bytes in {report.shards} shards{before}, "
        f"{len(report.left_out):,} left out: {report.folder}"
    )
    return 1 if report.left_out else 0
