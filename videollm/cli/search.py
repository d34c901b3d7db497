"""`videollm search "words" --index INDEX`: moments of indexed videos, the best first, one line each.

With --like FILE by an example; with --paragraph a long description, whose sentences happen one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from videollm.errors import ConfigError

if TYPE_CHECKING:
    from videollm.moments.moment import Found, Reason
    from videollm.tools.search import FoundStory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORDS", help="what is seen or heard there")
    parser.add_argument("--index", required=True, metavar="INDEX", help="what videollm index has made")
    parser.add_argument("--heard", metavar="WORDS", help="what is heard there; WORDS then say what is seen")
    parser.add_argument(
        "--like", metavar="FILE", help="moments like this picture, clip or sound; needs --encoder or --ear"
    )
    parser.add_argument(
        "--paragraph", action="store_true", help="WORDS are sentences that happen in order; - reads them from stdin"
    )
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="how many moments at most; default: 10")
    parser.add_argument("--video", action="append", metavar="FILE", help="only in this video; may be said again")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="only behind this time of a video")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="only before this time of a video")
    parser.add_argument("--encoder", metavar="NAME|DIR", help="the LaViLa dual encoder that the index was made with")
    parser.add_argument("--long", metavar="NAME|DIR", help="the LF-VILA that the index was made with")
    parser.add_argument("--ear", metavar="NAME|DIR", help="the ImageBind that the index was made with")
    parser.add_argument("--no-text", action="store_true", help="by vectors alone, not by what is told of the moments")
    parser.add_argument("--device", help="of the encoders: cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--json", action="store_true", help="one JSON object a moment")
    parser.add_argument("--export", metavar="FILE", help="write the moments into a .json or .csv file, too")
    parser.add_argument("--clips", metavar="FOLDER", help="cut the moments out of their videos, too, a file each")


def run(args: argparse.Namespace) -> int:
    from videollm.cli.chat import quiet
    from videollm.moments.store import MomentStore
    from videollm.tools.search import cut, export, search, search_paragraph

    words = " ".join(args.words).strip()
    if args.paragraph and words == "-":
        words = sys.stdin.read().strip()
    _check(args, words)
    between = None
    if args.start is not None or args.end is not None:
        between = args.start or 0.0, min(float("inf") if args.end is None else args.end, 1e9)
    store = MomentStore.open(args.index)
    encoder = long = ear = None
    if args.encoder is not None or args.long is not None or args.ear is not None:
        quiet()
        from videollm.moments.embed import load_sight_encoder
        from videollm.moments.long_form import load_long_form_encoder
        from videollm.moments.sound import load_sound_encoder

        encoder = None if args.encoder is None else load_sight_encoder(args.encoder, args.device)
        long = None if args.long is None else load_long_form_encoder(args.long, args.device)
        ear = None if args.ear is None else load_sound_encoder(args.ear, args.device)
    paths = None if args.video is None else [str(Path(video).resolve()) for video in args.video]
    if paths is not None:
        known = {video.path for video in store.videos()}
        for path in paths:
            if path not in known:
                raise ConfigError(f"{path} is not in {args.index}; index it first, or leave --video out")
    options = {
        "encoder": encoder, "long": long, "ear": ear, "text": not args.no_text, "paths": paths,
        "between_seconds": between, "limit": args.limit,
    }  # fmt: skip
    sentences, stories = search_paragraph(store, words, **options) if args.paragraph else ([], [])
    if args.paragraph:
        hits = [part for story in stories for part in story.parts if part is not None]
    else:
        like = None if args.like is None else Path(args.like)
        hits = search(store, words, heard=args.heard, like=like, **options)
    # Before anything is said of them: what cannot be written is an error, not half a success.
    if args.export is not None:
        export(hits, Path(args.export))
    files = [] if args.clips is None else cut(hits, Path(args.clips))
    for story in stories:
        _say_story(story, sentences, args.json)
    for hit in hits if not args.paragraph else ():
        _say(hit, args.json)
    if files:
        print(f"videollm: {len(files)} clips are in {args.clips}", file=sys.stderr)
    if not hits:
        asked = repr(words or args.heard) if words or args.heard else args.like
        print(f"videollm: nothing in {args.index} fits {asked}; try other words", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace, words: str) -> None:
    """Raises ConfigError for flags that do not go together, before anything is loaded."""
    if not words and not args.heard and args.like is None:
        raise ConfigError("nothing to search for; say in words what is seen or heard, or give an example with --like")
    if args.paragraph and (args.like is not None or args.heard is not None or not words):
        raise ConfigError("--paragraph goes with sentences alone; leave --like and --heard out")
    if args.like is not None and args.encoder is None and args.ear is None:
        raise ConfigError("--like compares vectors; give --encoder, --ear or both, as the index was made with")
    if args.no_text and args.encoder is None and args.long is None and args.ear is None:
        raise ConfigError("--no-text leaves only vectors; give --encoder, --long or --ear, as the index was made with")
    if args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, found {args.limit}")
    start, end = args.start or 0.0, float("inf") if args.end is None else args.end
    if not 0 <= start < end:
        raise ConfigError(f"--start must be from 0 and before --end, found {start:g} to {end:g}")
    if args.export is not None and Path(args.export).suffix.lower() not in (".json", ".csv"):
        raise ConfigError(f"--export writes .json or .csv, found {args.export}; name such a file")


def _say(hit: Found, as_json: bool) -> None:
    from videollm.cli.chat import shown
    from videollm.tools.narrate import clock

    if as_json:
        print(json.dumps(asdict(hit), ensure_ascii=False))
        return
    told = " ".join(f"{hit.narration} {hit.sound and f'({hit.sound})'}".split())
    place = f"{hit.path} [{clock(hit.start_seconds)}-{clock(hit.end_seconds)}]"
    print(shown(f"{place} {hit.score:.2f} {_ways(hit.why)}: {told}"))


def _say_story(story: FoundStory, sentences: list[str], as_json: bool) -> None:
    from videollm.cli.chat import shown
    from videollm.tools.narrate import clock

    if as_json:
        print(json.dumps({**asdict(story), "sentences": sentences}, ensure_ascii=False))
        return
    print(shown(f"{story.path} [{clock(story.start_seconds)}-{clock(story.end_seconds)}] {story.score:.2f}"))
    for sentence, part in zip(sentences, story.parts, strict=True):
        where = "not found" if part is None else f"[{clock(part.start_seconds)}-{clock(part.end_seconds)}]"
        ways = "" if part is None else f" {part.score:.2f} {_ways(part.why)}"
        print(shown(f"  {where}{ways}: {sentence}"))


def _ways(why: Mapping[Reason, int]) -> str:
    return ", ".join(f"{way} #{rank}" for way, rank in why.items())
