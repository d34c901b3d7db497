"""`videollm narrate CLIP...`: what happens in videos of any length, with times: to the terminal, or into files.

Narrations go to stdout, or with --out into files; all else goes to stderr. Interrupted or killed, the same command goes
on where it was.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from videollm.errors import ConfigError, VideoLLMError

if TYPE_CHECKING:
    from videollm.tools.narrate import Job, NarrationSettings, Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "clips", nargs="+", metavar="CLIP", help="video or sound files of any length, or folders of them"
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        help="a .jsonl, .srt or .vtt file; or a folder, which gets all three of every video; default: the terminal",
    )
    parser.add_argument("--window", type=float, default=4.0, metavar="SECONDS", help="length of a window; default: 4")
    parser.add_argument(
        "--stride",
        type=float,
        metavar="SECONDS",
        help="from window to window; default: the length; less is slower and surer",
    )
    parser.add_argument(
        "--cuts",
        action="store_true",
        help="windows end at cuts, too: a shot no longer than a window is told by itself",
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="where to begin")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="where to end")
    parser.add_argument(
        "--model",
        default="tiny",
        metavar="NAME|DIR",
        help="a chat model or LaViLa's narrator (tiny_narrator); default: tiny",
    )
    parser.add_argument("--question", metavar="TEXT", help="what a chat model is asked about each window")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the language model of a chat model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument(
        "--scorer",
        metavar="NAME|DIR",
        help="a LaViLa dual encoder (tiny_dual_encoder), which keeps the sentences that fit",
    )
    parser.add_argument("--candidates", type=int, default=1, metavar="N", help="sentences drawn a window; 1 is greedy")
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="of them, how many are kept; default: 1")
    parser.add_argument("--threshold", type=float, metavar="X", help="least similarity of what is kept; default: 0.5")
    parser.add_argument(
        "--rephraser",
        metavar="NAME|DIR",
        help="a T5 (tiny_rephraser) that says each sentence in other words, too",
    )
    parser.add_argument(
        "--repeats", type=float, default=1.0, metavar="X", help="how alike, up to 1, neighbours are to be made one"
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="windows narrated at once; default: 8")
    parser.add_argument("--seed", type=int, default=0, help="of drawing; default: 0")


def run(args: argparse.Namespace) -> int:
    from videollm.cli.chat import quiet

    quiet()
    from videollm.tools.narrate import NarrationSettings, check_settings, plan_outputs, videos_in

    settings = NarrationSettings(
        window_seconds=args.window,
        stride_seconds=args.stride,
        start_seconds=args.start,
        end_seconds=args.end,
        candidates=args.candidates,
        top_k=args.top_k,
        threshold=args.threshold,
        repeats=args.repeats,
        batch_windows=args.batch,
        seed=args.seed,
        cuts=args.cuts,
    )
    check_settings(settings, args.scorer)
    if args.question is not None and not args.question.strip():
        raise ConfigError("the question is empty; ask something in words, or leave --question out")
    videos = videos_in(args.clips)
    jobs = None if args.out is None else plan_outputs(videos, args.out)
    narrator, scorer, rephraser = _load(args)
    if args.model == "tiny":
        from videollm.cli.chat import TINY_NOTICE

        tell(TINY_NOTICE)
    if jobs is None:
        return _to_terminal(videos, settings, narrator, scorer, rephraser)
    return _to_files(jobs, settings, narrator, scorer, rephraser)


def _load(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    from videollm.cli.chat import import_models, say_plan

    import_models()
    from videollm.tools.narrators import load_narrator, load_rephraser, load_scorer, question_for

    # The small ones first: what is wrong with them is known before the wait for a large model.
    scorer = None if args.scorer is None else load_scorer(args.scorer, device=args.device)
    rephraser = None if args.rephraser is None else load_rephraser(args.rephraser, device=args.device)
    question = args.question or question_for(args.window, args.stride)
    narrator = load_narrator(args.model, device=args.device, bits=args.bits, question=question, announce=say_plan)
    return narrator, scorer, rephraser


def _to_terminal(
    videos: list[tuple[Any, str]], settings: NarrationSettings, narrator: Any, scorer: Any, rephraser: Any
) -> int:
    from dataclasses import asdict

    from videollm.cli.chat import shown
    from videollm.cli.main import one_line
    from videollm.tools.narrate import narrate

    failed = False
    for video, name in videos:
        if len(videos) > 1:
            print(f"{shown(name)}:", flush=True)
        # On a terminal the lines themselves show how far it is.
        bar = None if sys.stdout.isatty() else Bar(name)
        try:
            for one in narrate(
                video, narrator, **asdict(settings), scorer=scorer, rephraser=rephraser, progress=bar, report=tell
            ):
                print(shown(str(one)), flush=True)
        except VideoLLMError as error:
            if len(videos) == 1:
                raise
            print(one_line(f"videollm: {error}"), file=sys.stderr, flush=True)
            failed = True
        finally:
            if bar is not None:
                bar.close()
    return 2 if failed else 0


def _to_files(jobs: list[Job], settings: NarrationSettings, narrator: Any, scorer: Any, rephraser: Any) -> int:
    from videollm.cli.main import one_line
    from videollm.tools.narrate import narrate_files

    bars: list[Bar] = []

    def progress(job: Job) -> Progress:
        for bar in bars:
            bar.close()
        bars.append(Bar(job.name))
        return bars[-1]

    try:
        failed = narrate_files(
            jobs, narrator, settings, scorer=scorer, rephraser=rephraser, progress=progress, report=tell
        )
    except KeyboardInterrupt:
        print(one_line("videollm: interrupted; the same command goes on from here"), file=sys.stderr)
        return 130
    finally:
        for bar in bars:
            bar.close()
    return 2 if failed else 0


class Bar:
    """Windows that are done, as a bar on a terminal; nothing where stderr is none."""

    def __init__(self, name: str) -> None:
        self._name, self._bar = name, None

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            # disable=None: only on a terminal.
            self._bar = tqdm(
                total=total, initial=done, desc=self._name, unit="window", dynamic_ncols=True, disable=None
            )
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def tell(sentence: str) -> None:
    from videollm.cli.main import one_line

    print(one_line(f"videollm: {sentence}"), file=sys.stderr, flush=True)
