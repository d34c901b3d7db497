"""`videollm mcp`: narrate, search, look, listen and chapters for assistants that speak the Model Context Protocol.

Speaks over stdin and stdout; whatever else is to be said goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from videollm.errors import ConfigError, MissingDependencyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="the videos that can be asked about")
    parser.add_argument("--index", metavar="INDEX", help="what videollm index has made: its videos can be asked about")
    parser.add_argument("--model", default="tiny", metavar="NAME|DIR", help="default: the embedded tiny")
    parser.add_argument("--encoder", metavar="DIR", help="the LaViLa dual encoder that the index was made with")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the language model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument(
        "--call-seconds", type=float, default=60.0, metavar="SECONDS", help="the most that a call takes"
    )


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("mcp") is None:
        raise MissingDependencyError("the Model Context Protocol needs mcp; pip install 'videollm[mcp]'")
    if args.folder is None and args.index is None:
        raise ConfigError("nothing to ask about: name a folder of videos, or an index with --index INDEX")
    folder = None if args.folder is None else Path(args.folder).expanduser()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{args.folder} is no folder; name one that holds videos")
    from videollm.cli.chat import quiet, say_plan

    quiet()
    import anyio

    from videollm.models.hub import load
    from videollm.moments.embed import load_sight_encoder
    from videollm.moments.store import MomentStore
    from videollm.serving.mcp import files_of, serve_stdio, tool_server
    from videollm.tools.router import Router, ToolLimits

    limits = ToolLimits(seconds_per_call=args.call_seconds)
    store = None if args.index is None else MomentStore.open(args.index)
    encoder = None if args.encoder is None else load_sight_encoder(args.encoder, args.device)
    if store is not None and encoder is not None:
        store.check_encoder("seen", encoder.name)
    model, processor = load(args.model, device=args.device, bits=args.bits, announce=say_plan)
    router = Router.of_model(model, processor, index=store, encoder=encoder, limits=limits)
    try:
        anyio.run(serve_stdio, tool_server(router, lambda: {} if folder is None else files_of(folder)))
    finally:
        router.close()
    return 0
