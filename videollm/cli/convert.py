"""`videollm convert FAMILY FILES... --out DIR`: published checkpoints become one folder that `chat --model` takes."""

from __future__ import annotations

import argparse
import sys

from videollm.errors import ConfigError

FAMILIES = ("video-llama", "imagebind", "lavila", "lf-vila")
DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", choices=FAMILIES, help="what the files belong to")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILES",
        help="published files, the folder of the decoder, or folders that hold several of them, in any order; "
        "KIND=FILE has a file's kind checked",
    )
    parser.add_argument("--out", metavar="DIR", help="the folder to make; it must not be there yet")
    parser.add_argument(
        "--prompt",
        metavar="NAME",
        help="vicuna_v0 or llama_2_chat, where the files do not tell; own: the chat template of a newer decoder",
    )
    parser.add_argument("--no-audio", action="store_true", help="a model that only sees: no ImageBind, no audio branch")
    parser.add_argument("--download", metavar="NAME", help="fetch a published model first; --list names them")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; default: each as in its file")
    parser.add_argument("--config", metavar="FILE.json", help="the shape of the model, where not the published one")
    parser.add_argument(
        "--drop", action="append", default=[], metavar="PATTERN", help="leave out these published keys (* is anything)"
    )
    parser.add_argument("--list", action="store_true", help="show the published files: what they need, licences, sizes")


def run(args: argparse.Namespace) -> int:
    """Convert.

    Raises:
        VideoLLMError: the files cannot become a model, or cannot be fetched.
    """
    if args.list:
        from videollm.convert.published import DOWNLOADS, table

        print("\n".join(table()))
        print(f"--download takes {', '.join(DOWNLOADS)}")
        return 0
    if args.out is None:
        raise ConfigError("convert needs --out DIR, the folder to make")
    if not args.files and args.download is None:
        raise ConfigError("convert needs files, or --download NAME; --list shows the published ones")

    from videollm.cli.chat import quiet

    quiet()
    import torch

    from videollm.convert import imagebind, lavila, lf_vila, published, video_llama

    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    shape = {"config": args.config, "drop": args.drop, "dtype": dtype}
    others = {"imagebind": imagebind.convert, "lavila": lavila.convert, "lf-vila": lf_vila.convert}
    one_file = others.get(args.family)
    if one_file is not None:
        if args.download or args.prompt or args.no_audio:
            raise ConfigError("--download, --prompt and --no-audio belong to video-llama; leave them out")
        out = one_file(args.files, args.out, **shape)
        print(f"done: {out}")
        return 0
    paths = list(args.files)
    if args.download is not None:
        paths += published.fetch(args.download, say=lambda line: print(line, file=sys.stderr))
    out = video_llama.convert(paths, args.out, prompt=args.prompt, audio=not args.no_audio, **shape)
    print(f"done: videollm chat CLIP --model {out}")
    return 0
