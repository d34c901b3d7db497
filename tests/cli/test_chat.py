"""`videollm chat`: what is printed where, conversations on a pipe, and Ctrl-C."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.bad_files import good
from tests.small_model import small_model
from videollm.chat.session import ChatSession
from videollm.cli import chat
from videollm.cli.main import main
from videollm.models import hub, memory

ROOT = Path(__file__).parents[2]
SAW = "(saw 8 of 20 frames of good.mp4 (0.0-1.7 of 2.0 s), heard 2.0 s of 2.0 s)"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for part in small_model():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(good(tmp_path_factory.mktemp("clip")))


def expected(model, clip, *questions):
    """What a session answers, asked from Python."""
    session = ChatSession(*hub.load(model), max_new_tokens=16)
    session.add(clip)
    return [session.ask(question) for question in questions]


def run(capsys, *words):
    code = main(["chat", *words, "--max-new-tokens", "16"])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "ask", "clips", "question"),
    [
        (["a.mp4"], None, ["a.mp4"], None),
        (["a.mp4", "b.mp4", "what is it"], None, ["a.mp4", "b.mp4"], "what is it"),
        (["a.mp4", "why?"], None, ["a.mp4"], "why?"),
        (["a.mp4", "why"], None, ["a.mp4", "why"], None),
        (["a.mp4", ""], None, ["a.mp4"], ""),
        (["a.mp4", "what is it"], "why?", ["a.mp4", "what is it"], "why?"),
        (["is it a clip?.mp4"], None, ["is it a clip?.mp4"], None),
        ([], None, [], None),
    ],
)
def test_which_words_are_files_and_which_the_question(tmp_path, monkeypatch, words, ask, clips, question):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "is it a clip?.mp4").touch()
    assert chat.split_words(words, ask) == ([Path(c) for c in clips], question)


def test_one_question(capsys, model, clip):
    (answer,) = expected(model, clip, "What is it?")
    code, out, err = run(capsys, clip, "What is it?", "--model", model)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == SAW
    assert chat.shown(answer.text) in out
    assert "\x1b" not in out, "colours in a pipe"


def test_one_question_as_json(capsys, model, clip):
    (answer,) = expected(model, clip, "What is it?")
    code, out, err = run(capsys, clip, "--ask", "What is it?", "--model", model, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    record = json.loads(out)
    assert record["question"] == "What is it?"
    assert record["answer"] == answer.text
    assert record["coverage"][0]["sentence"] == SAW[1:-1]
    assert record["model"] == model and record["notice"] is None
    assert record["timings"]["prefilled_tokens"] == answer.timings.prefilled_tokens
    assert record["timings"]["load_seconds"] > 0


def test_a_long_video_is_gone_through_by_itself(capsys, monkeypatch, model, clip):
    monkeypatch.setattr("videollm.cli.chat.LONG_SECONDS", 1.0)
    code, out, err = run(capsys, clip, "What is it?", "--model", model, "--json")
    assert code == 0 and err.count("\n") == 1 and "good.mp4 lasts" in err and "--index INDEX" in err
    (coverage,) = json.loads(out)["coverage"]
    assert coverage["looked_seconds"] == coverage["duration_seconds"] and coverage["of_frames"] == 20
    code, out, err = run(capsys, clip, "What is it?", "--model", model, "--frames", "3", "--json")
    assert (code, err) == (0, "") and json.loads(out)["coverage"][0]["looked_seconds"] is None
    assert run(capsys, clip, "What is it?", "--model", model, "--segments", "5")[0] == 2


def test_fewer_frames(capsys, model, clip):
    code, out, _ = run(capsys, clip, "What is it?", "--model", model, "--frames", "3", "--json")
    assert code == 0
    assert json.loads(out)["coverage"][0]["frames"] == 3


def test_decord_gives_the_same_answer(capsys, model, clip):
    pytest.importorskip("decord")
    answers = {
        json.loads(run(capsys, clip, "What is it?", "--model", model, "--json", "--decoder", decoder)[1])["answer"]
        for decoder in ("pyav", "decord")
    }
    assert len(answers) == 1


def test_the_embedded_model_says_first_what_it_is_for(capsys, clip, monkeypatch, model):
    monkeypatch.setitem(hub.EMBEDDED, "tiny", Path(model))
    code, out, err = run(capsys, clip, "What is it?")
    assert (code, err) == (0, "")
    first = out.splitlines()[0]
    assert first == chat.TINY_NOTICE
    for word in ("only", "drawn shapes", "synthetic sounds", "does not know people, places, objects or words"):
        assert word in first
    assert json.loads(run(capsys, clip, "What is it?", "--json")[1])["notice"] == chat.TINY_NOTICE


def piped(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogateescape"))))


def test_questions_from_a_pipe(capsys, monkeypatch, model, clip):
    first, second = expected(model, clip, "one?", "two?")
    piped(monkeypatch, "one?\n\n  two?  \n/quit\nthree?\n")
    code, out, err = run(capsys, clip, "--model", model, "--json")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["answer"] for record in records] == [first.text, second.text]
    assert records[1]["timings"]["reused_tokens"] > 0
    assert records[1]["timings"]["encoded_clips"] == 0


def test_a_pipe_without_json_has_no_prompts_and_no_colours(capsys, monkeypatch, model, clip):
    piped(monkeypatch, "one?\ntwo?\n")
    code, out, err = run(capsys, clip, "--model", model)
    assert (code, err) == (0, "")
    assert out.count("(saw") == 1
    assert "\x1b" not in out and "> " not in out


def test_a_bad_line_of_a_pipe_is_one_error_and_the_next_is_answered(capsys, monkeypatch, model, clip, tmp_path):
    piped(monkeypatch, f"is it \udcff?\n/add {tmp_path}/none.mp4\n/frobnicate\n{'x' * 100_000}\none?\n")
    code, out, err = run(capsys, clip, "--model", model, "--json")
    assert code == 2
    assert [json.loads(line)["question"] for line in out.splitlines()] == ["one?"]
    lines = err.splitlines()
    assert len(lines) == 4
    for line, says in zip(lines, ("no UTF-8", "none.mp4", "no command /frobnicate", "100000 characters"), strict=True):
        assert line.startswith("videollm: ") and says in line


def test_commands(capsys, monkeypatch, model, clip, tmp_path):
    saved = tmp_path / "said.json"
    commands = [
        "/help",
        "/media",
        f"/add {clip}",
        "/media",
        "one?",
        "/undo",
        "/undo",
        "two?",
        f"/save {saved}",
        f"/save {saved}",
        "/clear",
        "/media",
    ]
    piped(monkeypatch, "\n".join(commands) + "\n")
    code, out, err = run(capsys, "--model", model)
    assert code == 2
    assert err.count("\n") == 1 and "said.json" in err and "exists" in err
    tools = ("/find", "/look", "/listen", "/narrate", "/chapters")
    for command in (*tools, "/add", "/media", "/undo", "/clear", "/save", "/help", "/quit"):
        assert command in out, "a command that /help does not list"
    for text in ("no clips", SAW, "took back: one?", "nothing to take back", "forgot everything"):
        assert text in out
    record = json.loads(saved.read_text())
    assert [message["parts"][-1]["text"] for message in record["messages"] if message["role"] == "user"] == ["two?"]
    assert record["clips"][0]["name"] == "good.mp4"


@pytest.fixture
def slow(monkeypatch):
    """Makes the model send this process Ctrl-C when it has said some tokens."""

    def at(*steps):
        seen = []
        real = chat.start

        def start(args):
            session = real(args)

            def interrupt(*_):
                seen.append(None)
                if len(seen) in steps:
                    signal.raise_signal(signal.SIGINT)

            session.model.register_forward_hook(interrupt)
            return session

        monkeypatch.setattr(chat, "start", start)

    return at


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(capsys, monkeypatch, slow, model, clip):
    slow(4)
    piped(monkeypatch, "one?\ntwo?\n")
    code, out, err = run(capsys, clip, "--model", model, "--json")
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert first["finish"] == "stopped" and 0 < first["timings"]["generated_tokens"] < 16
    assert second["finish"] != "stopped"
    assert second["timings"]["reused_tokens"] > first["timings"]["prompt_tokens"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_of_the_only_question_is_exit_code_130(capsys, slow, model, clip):
    slow(4)
    code, out, err = run(capsys, clip, "What is it?", "--model", model)
    assert (code, err) == (130, "")
    assert out.splitlines()[-1] == "(stopped)"


def test_ctrl_c_twice_leaves(capsys, monkeypatch, slow, model, clip):
    class Deaf(ChatSession):
        def stop(self):
            """As in a long pass of the decoder, which ends before stop() is looked at."""

    monkeypatch.setattr("videollm.chat.session.ChatSession", Deaf)
    slow(3, 4)
    code, _, err = run(capsys, clip, "What is it?", "--model", model)
    assert (code, err) == (130, "videollm: interrupted\n")


def test_a_terminal(model, clip):
    """A real one: prompts, an answer, Ctrl-C at the prompt once and twice."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "videollm", "chat", clip, "--model", model, "--max-new-tokens", "4"],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        cwd=ROOT,
        # Whoever runs the tests in the background has Ctrl-C ignored, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(terminal)
    seen = b""

    def until(text, seconds=180):
        nonlocal seen
        deadline = time.monotonic() + seconds
        while text not in seen:
            ready, _, _ = select.select([controller], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, seen
            seen += os.read(controller, 4096)
        before, seen = seen.split(text, 1)
        return before

    try:
        assert b"\x1b[2m(saw 8 of 20 frames" in until(b"Ask, or /help.")
        until(b"> ")
        os.write(controller, b"What is it?\n")
        until(b"(the answer was cut at 4 tokens)")
        until(b"> ")
        time.sleep(1)  # a signal between the prompt and the wait for a line is seen at the next key only
        process.send_signal(signal.SIGINT)
        until(b"(Ctrl-C again leaves)")
        until(b"> ")
        time.sleep(1)  # a signal between the prompt and the wait for a line is seen at the next key only
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        os.close(controller)


def test_the_plan_of_a_large_model_goes_to_stderr(capsys):
    plan = memory.plan(hub.read_config(hub.find("tiny")), "4-bit", model="large")
    chat.say_plan(plan)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == ["memory plan:", *(f"  {line}" for line in plan.lines())]


def test_encoders_and_decoder_on_two_devices(capsys, model, clip):
    pytest.importorskip("accelerate")
    code, out, err = run(capsys, clip, "what is it?", "--model", model, "--device", "cpu,cpu")
    assert code == 0 and err == ""
    assert out.splitlines()[-1] == run(capsys, clip, "what is it?", "--model", model)[1].splitlines()[-1]
    code, _, err = run(capsys, clip, "what is it?", "--model", model, "--device", "cpu,toaster")
    assert code == 2 and "device 'toaster' cannot be used here" in err and len(err.splitlines()) == 1


def test_the_question_may_stand_behind_a_flag(capsys, model, clip):
    code, out, err = run(capsys, clip, "--model", model, "--json", "What is it?")
    assert (code, err) == (0, "")
    assert json.loads(out)["question"] == "What is it?"


def test_a_wrong_option_is_told_before_a_model_is_loaded(capsys, monkeypatch, model, clip):
    monkeypatch.setattr(hub, "load", lambda *_, **__: pytest.fail("loaded"))
    code, out, err = run(capsys, clip, "What is it?", "--model", model, "--temperature", "nan")
    assert (code, out) == (2, "")
    assert err == "videollm: temperature must be a number of at least 0 (0 is greedy), found nan\n"


def test_ctrl_c_while_a_clip_is_added_leaves_the_conversation_there(capsys, monkeypatch, model, clip):
    monkeypatch.setattr(ChatSession, "add", lambda *_: signal.raise_signal(signal.SIGINT))
    piped(monkeypatch, f"/add {clip}\nWhat is it?\n")
    code, out, err = run(capsys, "--model", model, "--json")
    assert (code, err) == (2, "/add was interrupted\n")
    assert json.loads(out)["question"] == "What is it?"


@pytest.mark.parametrize("sampling", [{"strategy": "all"}, {"every": 2}, {"frames": "8"}, [1]], ids=str)
def test_a_folder_whose_sampling_is_broken_is_one_line(capsys, tmp_path, model, clip, sampling):
    for name in ("config.json", "processor_config.json"):
        (tmp_path / name).write_bytes((Path(model) / name).read_bytes())
    path = tmp_path / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frame_sampling": sampling}))
    code, out, err = run(capsys, clip, "What is it?", "--model", str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "what processor_config.json says of sampling cannot be used" in err


# -- tools


@pytest.mark.slow
def test_the_person_calls_tools(capsys, monkeypatch, clip):
    """With tiny, which tells what is there, and answers the same with tools as without."""
    pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")
    lines = [
        "/look 0 2",
        "/narrate",
        "/chapters",
        "/find a circle",
        "/listen good.mp4 0:00 0:01",
        "what is there?",
        "/media",
    ]
    piped(monkeypatch, "\n".join(lines) + "\n")
    code, out, err = run(capsys, clip)
    assert "[0:00-0:02] 8 frames: " in out and code in (0, 2), err
    assert expected("tiny", clip, "what is there?")[0].text in out and "(rests on " not in out


def test_a_wrong_call_is_one_line(capsys, monkeypatch, model, clip):
    wrong = {
        "/look": "a start and an end are needed, as in 1:02 1:10; found ''",
        "/look 3": "a start and an end are needed",
        "/look other.mp4 0 1": "there is no video 'other.mp4' here; there are 'good.mp4'",
        "/look /etc/passwd 0 1": "there is no video '/etc/passwd' here",
        "/look 2 1": "a stretch starts at 0 or later and ends after that",
        "/find": "/find needs words",
        "/find /etc/passwd": "found a path or an address",
        "/chapters other": "there is no video 'other'",
    }
    piped(monkeypatch, "\n".join(wrong) + "\n")
    code, _, err = run(capsys, clip, "--model", model)
    assert code == 2
    for line, says in zip(err.splitlines(), wrong.values(), strict=True):
        assert says in line


def test_flags_of_tools(capsys, model, clip, tmp_path):
    for words, says in (
        (("--calls", "-1"), "0 times a turn or more"),
        (("--encoder", "x"), "name one with --index INDEX"),
        (("--index", str(tmp_path / "none")), "no index at"),
    ):
        code, out, err = run(capsys, clip, "what?", "--model", model, *words)
        assert (code, out) == (2, "") and err.count("\n") == 1 and says in err
    code, out, err = run(capsys, clip, "what?", "--model", model, "--json", "--calls", "2")
    record = json.loads(out)
    assert code == 0 and {"used", "rounds"} <= set(record)
    assert {one["how"] for one in record["used"]} >= {"seen"}


def test_times_and_receipts_as_a_person_reads_them():
    from videollm.chat.calls import Evidence

    assert [chat.seconds_of(text) for text in ("12.5", "1:02", "1:02:03", "x", "1:", "-3")] == [
        12.5,
        62,
        3723,
        None,
        None,
        None,
    ]
    used = [Evidence("a.mp4", 12, 16, "seen"), Evidence("a.mp4", 20, 24, "seen"), Evidence("a.mp4", 0, 2.5, "heard")]
    assert chat.receipts(used) == "seen a.mp4 [0:12-0:16] [0:20-0:24]; heard a.mp4 [0:00-0:02.5]"
