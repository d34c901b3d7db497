"""`videollm index FOLDER --into INDEX`: make videos searchable; again, it brings the index up to date.

Nothing goes to stdout but one line of counts, last. Interrupted or killed, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videollm.errors import ConfigError

if TYPE_CHECKING:
    from videollm.tools.narrate import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", nargs="+", metavar="FOLDER", help="folders of videos and sounds, or files")
    parser.add_argument(
        "--into", required=True, metavar="INDEX", help="folder of the index, or an object store's (s3://, gs://, az://)"
    )
    parser.add_argument("--window", type=float, default=4.0, metavar="SECONDS", help="length of a window; default: 4")
    parser.add_argument("--stride", type=float, default=2.0, metavar="SECONDS", help="window to window; default: 2")
    parser.add_argument(
        "--cuts", action="store_true", help="windows end at cuts, too: a shot no longer than a window is one window"
    )
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
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that look at videos, each with the models; default: 1"
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: the workers are Ray's, here or on the cluster that RAY_ADDRESS names; they see the same folders",
    )
    parser.add_argument("--prune", action="store_true", help="take videos out whose file is gone")


def run(args: argparse.Namespace) -> int:
    from videollm.cli.chat import TINY_NOTICE, import_models, quiet, say_plan
    from videollm.cli.narrate import tell

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers must be at least 1, found {args.workers}")
    quiet()
    from videollm.moments.store import MomentStore
    from videollm.tools.index import CrewNames, IndexSettings, index
    from videollm.tools.narrate import videos_in

    settings = IndexSettings(args.window, args.stride, args.batch, args.cuts)
    videos = [path for path, _ in videos_in(args.clips)]
    MomentStore.exists(args.into)  # what is wrong with the place is known before the wait for the models
    names = CrewNames(args.model, args.encoder, args.long, args.ear, args.device, args.bits)
    bar = TogetherBar(len(videos))
    if args.model == "tiny":
        tell(TINY_NOTICE)
    told: dict[str, Any] = {"prune": args.prune, "progress": bar, "report": tell}
    try:
        if args.engine == "ray":
            from videollm.tools.index_ray import index_on_ray

            done = index_on_ray(videos, args.into, names, settings, workers=args.workers, **told)
        elif args.workers is not None and args.workers > 1:
            from videollm.tools.index_processes import index_in_processes

            done = index_in_processes(
                videos, args.into, names, settings, workers=args.workers, announce=say_plan, **told
            )
        else:
            import_models()
            done = index(videos, args.into, names.load(say_plan), settings, **told)
    except KeyboardInterrupt:
        bar.close()
        tell("interrupted; the same command goes on from here")
        return 130
    finally:
        bar.close()
    print(
        f"{args.into}: {len(done.stored)} stored, {len(done.unchanged)} unchanged, {len(done.removed)} removed, "
        f"{len(done.failed)} failed"
    )
    sys.stdout.flush()
    return 2 if done.failed else 0


class TogetherBar:
    """Windows of all videos that were begun, as one bar on a terminal; nothing where stderr is none."""

    def __init__(self, videos: int) -> None:
        self._videos, self._bar = videos, None
        self._at: dict[Path, tuple[int, int]] = {}

    def __call__(self, video: Path) -> Progress:
        def progress(done: int, total: int) -> None:
            from tqdm import tqdm

            self._at[video] = done, total
            if self._bar is None:
                # disable=None: only on a terminal.
                self._bar = tqdm(unit="window", dynamic_ncols=True, disable=None)
            whole = sum(done == total for done, total in self._at.values())
            self._bar.set_description(f"{whole} of {self._videos} videos", refresh=False)
            self._bar.total = sum(total for _, total in self._at.values())
            self._bar.update(sum(done for done, _ in self._at.values()) - self._bar.n)

        return progress

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
