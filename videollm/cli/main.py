"""The command line: one verb, one file in `videollm.cli`, imported when it is asked for.

A verb's module has ``add_arguments(parser)`` and ``run(args) -> int | None``, and imports nothing heavy at its top, so
that ``--help`` answers at once. Exit codes: 0; 1 a verb's own "no" (e.g. a failed check); 2 the user's input; 130
interrupted; 141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from videollm import __version__
from videollm.errors import VideoLLMError

VERBS: dict[str, tuple[str, str]] = {
    "chat": ("videollm.cli.chat", "ask about videos, images and sounds: one question, or a conversation"),
    "narrate": ("videollm.cli.narrate", "tell what happens in videos of any length, with times"),
    "index": ("videollm.cli.index", "make folders of videos searchable; again, bring the index up to date"),
    "search": ("videollm.cli.search", "find moments of indexed videos by words"),
    "convert": ("videollm.cli.convert", "make a model folder of published checkpoints"),
    "train": ("videollm.cli.train", "train a model by a recipe (YAML)"),
    "data": ("videollm.cli.data", "look over a dataset, write a published one in our schema, or pack it into shards"),
    "doctor": ("videollm.cli.doctor", "say what this machine can run; check a model's folder"),
    "demo": ("videollm.cli.demo", "the page: bring clips, watch them, talk about them"),
    "serve": ("videollm.cli.serve", "an HTTP service that answers as OpenAI's API does"),
    "mcp": ("videollm.cli.mcp", "the chat's tools for assistants that speak the Model Context Protocol"),
    "evaluate": ("videollm.cli.evaluate", "measure a model by a benchmark (YAML)"),
}

LONGEST_LINE_CHARACTERS = 600
"""An error line is shortened in its middle beyond this: it may quote a file name or a question of any length."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"{self.prog}: {message}; see {self.prog} --help") + "\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Files and flags in any order; the library's own takes the files of a list from one place only."""
        if self._subparsers is not None or "--" in args:
            return super().parse_args(args, namespace)
        return self.parse_intermixed_args(args, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    Args:
        argv: the words after ``videollm``; by default those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold bytes that no encoding can print
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()  # here, where it can still be caught that nobody reads
        return code
    except VideoLLMError as error:
        print(one_line(f"videollm: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("videollm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output is gone; what is still buffered must not raise again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(words: list[str]) -> int:
    try:
        return _run_verb(words)
    except SystemExit as exit_:  # argparse leaves this way, after its line
        return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 2


def _run_verb(words: list[str]) -> int:
    parser = OneLineParser(
        prog="videollm",
        description="An assistant that sees and hears.",
        epilog="verbs:\n" + "\n".join(f"  {verb:<10} {line}" for verb, (_, line) in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"videollm {__version__}")
    parser.add_argument("verb", metavar="VERB", nargs="?", help="what to do; `videollm VERB --help` tells more")
    # The launcher of DeepSpeed puts it before all words; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    # Only what stands before the verb is ours: everything behind it belongs to the verb.
    first = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    verb = parser.parse_args(words[: first + 1]).verb
    if verb is None:
        parser.error(f"no verb; there are {', '.join(VERBS)}")
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(VERBS)}"
        parser.error(f"no verb {verb!r}; {hint}")
    home, line = VERBS[verb]
    module: Any = import_module(home)
    verb_parser = OneLineParser(prog=f"videollm {verb}", description=line[0].upper() + line[1:] + ".")
    module.add_arguments(verb_parser)
    return int(module.run(verb_parser.parse_args(words[first + 1 :])) or 0)


def one_line(text: str) -> str:
    """Text as one line that a terminal can show: no line breaks or control characters, and not too long."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else f"\\x{ord(c):02x}" for c in text)
    if len(line) > LONGEST_LINE_CHARACTERS:
        half = LONGEST_LINE_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return line


if __name__ == "__main__":
    sys.exit(main())
