"""`videollm search "words" --index INDEX`: moments of indexed videos, the best first, one line each."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from videollm.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="WORDS", help="what is seen or heard there")
    parser.add_argument("--index", required=True, metavar="INDEX", help="what videollm index has made")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="how many moments at most; default: 10")
    parser.add_argument("--video", action="append", metavar="FILE", help="only in this video; may be said again")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="only behind this time of a video")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="only before this time of a video")
    parser.add_argument("--encoder", metavar="DIR", help="the LaViLa dual encoder that the index was made with")
    parser.add_argument("--long", metavar="NAME|DIR", help="the LF-VILA that the index was made with")
    parser.add_argument("--device", help="of the encoders: cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--json", action="store_true", help="one JSON object a moment")


def run(args: argparse.Namespace) -> int:
    from videollm.cli.chat import quiet, shown
    from videollm.moments.store import MomentStore
    from videollm.tools.narrate import clock
    from videollm.tools.search import search

    words = " ".join(args.words).strip()
    if not words:
        raise ConfigError("nothing to search for; say in words what is seen or heard")
    if args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, found {args.limit}")
    start, end = args.start or 0.0, float("inf") if args.end is None else args.end
    if not 0 <= start < end:
        raise ConfigError(f"--start must be from 0 and before --end, found {start:g} to {end:g}")
    store = MomentStore.open(args.index)
    encoder = long = None
    if args.encoder is not None or args.long is not None:
        quiet()
        from videollm.moments.embed import load_sight_encoder
        from videollm.moments.long_form import load_long_form_encoder

        encoder = None if args.encoder is None else load_sight_encoder(args.encoder, args.device)
        long = None if args.long is None else load_long_form_encoder(args.long, args.device)
    between = None if args.start is None and args.end is None else (start, min(end, 1e9))
    paths = None if args.video is None else [str(Path(video).resolve()) for video in args.video]
    if paths is not None:
        known = {video.path for video in store.videos()}
        for path in paths:
            if path not in known:
                raise ConfigError(f"{path} is not in {args.index}; index it first, or leave --video out")
    hits = search(store, words, encoder=encoder, long=long, paths=paths, between_seconds=between, limit=args.limit)
    for hit in hits:
        if args.json:
            print(json.dumps(asdict(hit), ensure_ascii=False))
            continue
        told = " ".join(f"{hit.narration} {hit.sound and f'({hit.sound})'}".split())
        ways = ", ".join(f"{way} #{rank}" for way, rank in hit.why.items())
        print(shown(f"{hit.path} [{clock(hit.start_seconds)}-{clock(hit.end_seconds)}] {hit.score:.2f} {ways}: {told}"))
    if not hits:
        print(f"videollm: nothing in {args.index} fits {words!r}; try other words", file=sys.stderr)
    return 0
