"""Bad input through the command line: one line on stderr, exit code 2, no traceback, nothing left behind.

Most run in this process, where torch is imported once; a few of every kind run as the real command.
"""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.bad_files import BAD_FILES, good, written
from tests.small_model import small_model
from videollm.cli.main import main
from videollm.media.decode_worker import close_server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's folder that another user may read, too."""
    folder = tmp_path_factory.mktemp("model")
    for part in small_model():
        part.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(good(tmp_path_factory.mktemp("clip")))


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path, monkeypatch):
    """No process, and no file that the test did not make, in the working folder or in the temporary one."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setenv("TMPDIR", str(scratch))
    yield
    assert os.listdir(scratch) == []
    close_server()
    assert psutil.Process().children(recursive=True) == []


def refused(capsys, words, says):
    """Runs the command in this process, and returns the line with which it refuses."""
    started = time.monotonic()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert re.search(says, err), err
    assert "Traceback" not in err and len(err) < 700
    assert "saw" not in out and "heard" not in out
    assert time.monotonic() - started < 60
    return err


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file(kind, model, tmp_path, capsys):
    make, says = BAD_FILES[kind]
    path = make(tmp_path)
    line = refused(capsys, ["chat", str(path), "What is it?", "--model", model], says)
    assert path.name in line


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("why " * 25_000, "100000|99999"),
        ("x" * 100_000 + "?", "100001 characters"),
        ("is it\x07 red?", "control character"),
        ("is it \udcff?", "no UTF-8 text"),
    ],
    ids=["nothing", "blanks", "100000 characters", "one word", "control", "no utf-8"],
)
@pytest.mark.parametrize("how", ["last word", "--ask"])
def test_a_bad_question(how, question, says, model, clip, capsys):
    words = [clip, question] if how == "last word" else [clip, f"--ask={question}"]
    refused(capsys, ["chat", *words, "--model", model], says)


def test_a_question_that_is_too_long_for_the_model_only(model, clip, capsys):
    refused(capsys, ["chat", clip, "why is that? " * 200, "--model", model], "takes .* tokens")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--frames", "0"], "--frames must be at least 1"),
        (["--frames", "33"], "32 frames"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "2", "--temperature", "1"], "top_p"),
        (["--device", "warp"], "warp"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_bad_option(options, says, model, clip, capsys):
    refused(capsys, ["chat", clip, "What is it?", "--model", model, *options], says)


def test_a_question_without_a_clip(model, capsys):
    refused(capsys, ["chat", "What is it?", "--model", model], "no clip to ask 'What is it")


def test_one_bad_clip_among_good_ones(model, clip, tmp_path, capsys):
    bad = written(tmp_path, "noise.mp4", b"no clip at all" * 99)
    refused(capsys, ["chat", clip, str(bad), clip, "What is it?", "--model", model], r"noise\.mp4")


def test_more_clips_than_the_context_holds(model, clip, capsys):
    refused(capsys, ["chat", *[clip] * 60, "What is it?", "--model", model], "the clips take .* tokens")


def test_a_file_that_changes_while_it_is_read(model, clip, tmp_path, capsys):
    path = written(tmp_path, "growing.mp4", Path(clip).read_bytes())
    stop = threading.Event()

    def grow():
        while not stop.is_set():
            with path.open("ab") as out:
                out.write(bytes(16))
            time.sleep(0.0005)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        # A try may fall between two writes; of many, not all can.
        refused(capsys, ["chat", *[str(path)] * 20, "What is it?", "--model", model], "changed while it was read")
    finally:
        stop.set()
        writer.join()


def test_names_that_are_unusual_are_no_bad_input(model, clip, tmp_path, capsys):
    for name in ("no extension", 'it\'s "quoted" & $HOME.txt', "größe 日本.mp3", "what is this?", "\x1b[2J.mp4"):
        path = written(tmp_path, name, Path(clip).read_bytes())
        assert main(["chat", str(path), "--ask", "What is it?", "--model", model]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "saw 8 of 20 frames of" in out and "\x1b" not in out


def test_a_file_cut_off_is_answered_from_what_is_there(model, tmp_path, capsys):
    body = good(tmp_path, "whole.mkv", key_every=4).read_bytes()
    path = written(tmp_path, "cut.mkv", body[: int(len(body) * 0.6)])
    assert main(["chat", str(path), "What is it?", "--model", model]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "the file is cut off: readable up to" in out


# -- as the real command


def command(*words, stdin=subprocess.DEVNULL):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "videollm", *words],
        capture_output=True,
        stdin=stdin,
        env=environment,
        timeout=120,
    )


def one_line_and_2(result, says):
    error = result.stderr.decode()
    assert result.returncode == 2, (result.returncode, error)
    assert error.count("\n") == 1 and re.search(says, error), error


@pytest.mark.parametrize("kind", ["missing", "random bytes", "absurd duration"])
def test_a_bad_file_of_the_real_command(kind, model, tmp_path):
    make, says = BAD_FILES[kind]
    one_line_and_2(command("chat", str(make(tmp_path)), "What is it?", "--model", model), says)


def test_bytes_that_are_no_text_of_the_real_command(model, clip):
    one_line_and_2(command("chat", clip, b"is it \xff red?", "--model", model), "no UTF-8 text")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_permission(clip, model, tmp_path, capsys):
    """As another user: for root every file is readable."""
    assert main(["chat", clip, "What is it?", "--model", model]) == 0  # imports everything, while it may still be read
    capsys.readouterr()
    path = written(tmp_path, "closed.mp4", Path(clip).read_bytes())
    path.chmod(0)
    said = tmp_path / "said.txt"
    for folder in (tmp_path, Path(model)):
        for parent in (folder, *folder.parents):
            if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            sys.stdout = sys.stderr = said.open("w")
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            code = main(["chat", str(path), "What is it?", "--model", model])
            sys.stderr.flush()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert re.fullmatch(r"videollm: .*closed\.mp4.*permission.*\n", said.read_text()), said.read_text()
