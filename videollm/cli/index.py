"""`videollm index FOLDER --into INDEX`: make videos searchable; again, it brings the index up to date.

Nothing goes to stdout but one line of counts, last. Interrupted or killed, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", nargs="+", metavar="FOLDER", help="folders of videos and sounds, or files")
    parser.add_argument("--into", required=True, metavar="INDEX", help="folder of the index, or an object store's URL")
    parser.add_argument("--window", type=float, default=4.0, metavar="SECONDS", help="length of a window; default: 4")
    parser.add_argument("--stride", type=float, default=2.0, metavar="SECONDS", help="window to window; default: 2")
    parser.add_argument("--model", default="tiny", metavar="NAME|DIR", help="who tells what is seen; default: tiny")
    parser.add_argument("--encoder", metavar="NAME|DIR", help="a LaViLa dual encoder: by what is seen, beside words")
    parser.add_argument(
        "--long", metavar="NAME|DIR", help="an LF-VILA (tiny_lf_vila): finds by what is seen within a longer stretch"
    )
    parser.add_argument(
        "--ear", metavar="NAME|DIR", help="an ImageBind (tiny_imagebind): finds by what is heard, beside words"
    )
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the language model of a chat model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="windows looked at at once; default: 8")
    parser.add_argument("--prune", action="store_true", help="take videos out whose file is gone")


def run(args: argparse.Namespace) -> int:
    from videollm.cli.chat import TINY_NOTICE, import_models, quiet, say_plan
    from videollm.cli.narrate import Bar, tell

    quiet()
    from videollm.tools.index import LISTEN_QUESTION, LOOK_QUESTION, Crew, IndexSettings, index
    from videollm.tools.narrate import videos_in

    settings = IndexSettings(args.window, args.stride, args.batch)
    videos = [path for path, _ in videos_in(args.clips)]
    import_models()
    from videollm.moments.embed import load_sight_encoder
    from videollm.moments.long_form import load_long_form_encoder
    from videollm.moments.sound import load_sound_encoder
    from videollm.tools.narrators import ChatNarrator, load_narrator

    encoder = None if args.encoder is None else load_sight_encoder(args.encoder, args.device)
    long = None if args.long is None else load_long_form_encoder(args.long, args.device)
    ear = None if args.ear is None else load_sound_encoder(args.ear, args.device)
    narrator = load_narrator(args.model, device=args.device, bits=args.bits, announce=say_plan)
    listener = None
    if isinstance(narrator, ChatNarrator):
        listener = None if narrator.sound is None else narrator.asking(LISTEN_QUESTION)
        narrator = narrator.asking(LOOK_QUESTION)
    if args.model == "tiny":
        tell(TINY_NOTICE)
    bars: list[Bar] = []

    def progress(video: Path) -> Bar:
        for bar in bars:
            bar.close()
        bars.append(Bar(video.name))
        return bars[-1]

    try:
        done = index(
            videos, args.into, Crew(narrator, listener, encoder, long, ear), settings,
            prune=args.prune, progress=progress, report=tell,
        )  # fmt: skip
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on from here")
        return 130
    finally:
        for bar in bars:
            bar.close()
    print(
        f"{args.into}: {len(done.stored)} stored, {len(done.unchanged)} unchanged, {len(done.removed)} removed, "
        f"{len(done.failed)} failed"
    )
    sys.stdout.flush()
    return 2 if done.failed else 0
