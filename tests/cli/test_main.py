"""The command line's frame: verbs, help without torch, one line an error, exit codes."""

import os
import subprocess
import sys

import pytest

import videollm
from videollm.cli import main as cli
from videollm.errors import MediaUnreadableError

PROBE = """
import contextlib, io, sys
from videollm.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = main(sys.argv[1:])
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "numpy", "av", "tokenizers"})
print(code, len(out.getvalue()) > 100, ",".join(heavy))
"""


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in cli.VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    result = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "0 True", (result.stdout, result.stderr)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, videollm; assert not {'torch', 'numpy'} & set(sys.modules); print(dir(videollm))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert set(videollm.__all__) <= set(eval(result.stdout))


def test_public_names_are_there_and_others_are_not():
    for name in videollm.__all__:
        assert getattr(videollm, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = videollm.lode


def test_python_m_videollm_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "videollm", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == f"videollm {videollm.__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no verb; there are chat,"),
        (["chta"], "did you mean 'chat'?"),
        (["frobnicate"], "there are chat,"),
        (["--frob"], "--frob"),
        (["chat", "--frob"], "unrecognized arguments: --frob"),
        (["chat", "--bits", "3"], "invalid choice: 3"),
        (["chat", "--frames", "x"], "invalid int value: 'x'"),
        (["chat", "--decoder", "ffmpeg"], "invalid choice: 'ffmpeg'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(words, says, capsys):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err
    assert "--help" in err


class Verb:
    """Stands in for a verb's module."""

    def __init__(self, outcome):
        self.outcome = outcome

    def add_arguments(self, parser):
        pass

    def run(self, args):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "code", "line"),
    [
        (None, 0, ""),
        (1, 1, ""),
        (MediaUnreadableError("cannot read 'a\nb\x1b[2J.mp4'"), 2, "videollm: cannot read 'a b\\x1b[2J.mp4'\n"),
        (KeyboardInterrupt(), 130, "videollm: interrupted\n"),
    ],
)
def test_how_a_verb_ends_is_the_exit_code(monkeypatch, capsys, outcome, code, line):
    monkeypatch.setattr(cli, "import_module", lambda name: Verb(outcome))
    assert cli.main(["chat"]) == code
    assert capsys.readouterr() == ("", line)


def test_an_unforeseen_error_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "import_module", lambda name: Verb(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["chat"])


def test_a_line_is_shortened_in_its_middle():
    line = cli.one_line("begin " + "x" * 100_000 + " end")
    assert len(line) < cli.LONGEST_LINE_CHARACTERS + 10
    assert line.startswith("begin x") and line.endswith("x end")


def test_output_that_nobody_reads_is_no_error():
    """`videollm --help | true`: no traceback, whatever of it was still buffered."""
    code = "from videollm.cli.main import main; import sys; sys.exit(main(['chat', '--help']))"
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # unbuffered, argparse itself would swallow the error
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, env=environment
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")
