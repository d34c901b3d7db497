"""The model in a process of its own: killed, hung, left behind, told to end while it loads."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import psutil
import pytest

from tests.cli.bad_files import good
from tests.small_model import ENDLESS_TOKENS, endless_model
from videollm.chat.session import ChatSession
from videollm.errors import UnavailableError
from videollm.models.hub import load
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits

ENDLESS = {"max_new_tokens": ENDLESS_TOKENS}
"""Options of an answer that goes on until its process is ended, however late that is."""
LIMITS = WorkerLimits(new_tokens=ENDLESS_TOKENS, working_tokens=2**40, working_bytes=2**50)
"""With room for such answers."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for part in endless_model():
        part.save_pretrained(folder)
    return str(folder)


async def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


def run(scenario, model, limits=LIMITS):
    async def whole():
        worker = ModelWorker(ModelChoice(model), limits).start()
        try:
            return await asyncio.wait_for(scenario(worker), 280)
        finally:
            await asyncio.to_thread(worker.close, 0)
            assert worker.pid is None

    return asyncio.run(whole())


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def yielding(runtime, clip):
    yield type(runtime.model).__name__, clip.name, os.getpid()


def test_killed_under_load_it_starts_again_and_conversations_go_on(model, tmp_path):
    clip, questions = good(tmp_path), ("What is in the video?", "And what do you hear?")

    async def scenario(worker):
        one, two = worker.open(), worker.open()
        shown = await worker.add(one, clip, "good.mp4")
        first = await (await worker.ask(one, questions[0], max_new_tokens=20)).finished()
        before = worker.pid
        [(model, name, where)] = [item async for item in worker.run(yielding, shown)]
        assert (model, name, where) == ("VideoLlamaForConditionalGeneration", "good.mp4", before)
        turns = [await worker.ask(one, "tell all", **ENDLESS), await worker.ask(two, "and me?", **ENDLESS)]
        async for _ in turns[0]:
            break
        os.kill(before, signal.SIGKILL)
        for turn in turns:
            with pytest.raises(UnavailableError, match="was killed by SIGKILL and is being started again"):
                await turn.finished()
        assert worker.runtime is None and "started again" in worker.state and worker.alive
        # Nobody has to do anything: the next question waits for the new process, which is told what was said.
        second = await (await worker.ask(one, questions[1], max_new_tokens=20)).finished()
        assert worker.pid != before and gone(before) and worker.counts.restarts == 1
        assert second.timings.reused_tokens == 0 and second.timings.encoded_clips == 1
        assert [exchange.answer for exchange in one.exchanges] == [first, second]
        return worker.pid, [first.text, second.text]

    pid, texts = run(scenario, model)
    assert gone(pid)
    session = ChatSession(*load(model))
    session.add(clip)
    assert texts == [session.ask(question, max_new_tokens=20).text for question in questions]


@pytest.mark.slow
def test_one_that_hangs_is_ended_and_started_again(model):
    async def scenario(worker):
        await worker.ready()
        turn = await worker.ask(worker.open(), "tell all", **ENDLESS)
        before = worker.pid
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(UnavailableError, match="said nothing for 10 s, was ended and is being started again"):
            await turn.finished()
        assert (await (await worker.ask(worker.open(), "who are you?", max_new_tokens=20)).finished()).text
        assert gone(before)

    run(scenario, model, replace(LIMITS, silent_seconds=10.0))


@pytest.mark.slow
def test_told_to_end_while_it_loads_it_ends_at_once():
    async def scenario():
        worker = ModelWorker().start()
        await until(lambda: worker.pid is not None)
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)  # so that it never comes to the end of its loading
        await asyncio.to_thread(worker.close, 10**6)
        assert gone(pid)
        with pytest.raises(UnavailableError, match="shutting down"):
            worker.open()

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True])
def test_nothing_is_left_when_the_service_is_killed(loaded):
    program = (
        "import asyncio, time\n"
        "from videollm.serving.model_worker import ModelWorker\n"
        "async def main():\n"
        "    worker = ModelWorker().start()\n"
        f"    if {loaded}: await worker.ready()\n"
        "    while worker.pid is None: await asyncio.sleep(0.01)\n"
        "    print(worker.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as service:
        pid = int(service.stdout.readline())
        service.kill()
    deadline = time.monotonic() + 200  # on a busy machine it is still importing torch
    while not gone(pid):
        assert time.monotonic() < deadline, "the model's process is still there"
        time.sleep(0.05)


SERVE = """
import sys
from functools import partial
from videollm.cli.main import main
from videollm.serving import model_worker
model_worker.WorkerLimits = partial(model_worker.WorkerLimits, new_tokens=10**6)
sys.exit(main(["serve", "--port", "0", "--model", sys.argv[1]]))
"""
"""`videollm serve`, with room for long answers."""


@pytest.mark.slow
def test_over_http_the_service_says_503_and_serves_again_by_itself(model, tmp_path):
    clip = good(tmp_path)
    command = [sys.executable, "-c", SERVE, model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            address = service.stdout.readline().split()[1].removesuffix("/v1")
            with httpx.Client(base_url=address, timeout=300) as http:

                def healthy(wanted):
                    deadline = time.monotonic() + 200
                    while time.monotonic() < deadline:
                        with contextlib.suppress(httpx.ConnectError):  # it does not listen yet
                            if http.get("/healthz").status_code == wanted:
                                return
                        time.sleep(0.05)
                    raise AssertionError(f"/healthz did not say {wanted}")

                def ask(messages, **options):
                    body = {"model": name, "messages": messages, "max_tokens": 20, **options}
                    return http.post("/v1/chat/completions", json=body)

                healthy(200)
                name = http.get("/v1/models").json()["data"][0]["id"]
                media_id = http.post("/v1/media", params={"name": "a.mp4"}, content=clip.read_bytes()).json()["id"]
                part = {"type": "video_url", "video_url": {"url": f"media:{media_id}"}}
                said = [{"role": "user", "content": [part, {"type": "text", "text": "What is in the video?"}]}]
                said += [
                    {"role": "assistant", "content": "a red circle."},
                    {"role": "user", "content": "what is heard?"},
                ]
                first = ask(said).raise_for_status().json()["choices"][0]["message"]["content"]
                children = psutil.Process(service.pid).children()
                [engine] = [child for child in children if "engine_process" in " ".join(child.cmdline())]
                body = {"model": name, "messages": [{"role": "user", "content": "Tell me all."}]}
                body |= {"max_tokens": ENDLESS_TOKENS - 1, "stream": True}
                with http.stream("POST", "/v1/chat/completions", json=body) as stream:
                    lines = stream.iter_lines()
                    next(line for line in lines if line)
                    engine.kill()
                    rest = "".join(lines)
                assert "was killed by SIGKILL and is being started again; ask again" in rest and "[DONE]" not in rest
                healthy(503)
                healthy(200)
                assert [one["id"] for one in http.get("/v1/media").json()["data"]] == [media_id]
                assert ask(said).raise_for_status().json()["choices"][0]["message"]["content"] == first != ""
                assert "videollm_restarts_total 1" in http.get("/metrics").text
        finally:
            service.terminate()
