"""The model in a process of its own: killed, hung, left behind, told to end while it loads."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from tests.cli.bad_files import good
from videollm.errors import UnavailableError
from videollm.serving.model_worker import ModelWorker, WorkerLimits


async def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


def run(scenario, limits=None):
    async def whole():
        worker = ModelWorker(limits=limits).start()
        try:
            return await asyncio.wait_for(scenario(worker), 280)
        finally:
            await asyncio.to_thread(worker.close, 0)
            assert worker.pid is None

    return asyncio.run(whole())


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


LONG = {"max_new_tokens": 250, "temperature": 3.0, "seed": 1}


def yielding(runtime, clip):
    yield type(runtime.model).__name__, clip.name, os.getpid()


def test_killed_under_load_it_starts_again_and_conversations_go_on(tmp_path):
    clip = good(tmp_path)

    async def scenario(worker):
        one, two = worker.open(), worker.open()
        shown = await worker.add(one, clip, "good.mp4")
        first = await (await worker.ask(one, "What is in the video?")).finished()
        before = worker.pid
        [(model, name, where)] = [item async for item in worker.run(yielding, shown)]
        assert (model, name, where) == ("VideoLlamaForConditionalGeneration", "good.mp4", before)
        turns = [await worker.ask(one, "tell all", **LONG), await worker.ask(two, "and me?", **LONG)]
        async for _ in turns[0]:
            break
        os.kill(before, signal.SIGKILL)
        for turn in turns:
            with pytest.raises(UnavailableError, match="was killed by SIGKILL and is being started again"):
                await turn.finished()
        assert worker.runtime is None and "started again" in worker.state and worker.alive
        # Nobody has to do anything: the next question waits for the new process, which is told what was said.
        second = await (await worker.ask(one, "And what do you hear?")).finished()
        assert worker.pid != before and gone(before) and worker.counts.restarts == 1
        assert second.timings.reused_tokens == 0 and second.timings.encoded_clips == 1
        assert [exchange.answer for exchange in one.exchanges] == [first, second]
        return worker.pid, [first.text, second.text]

    from videollm.chat.session import ChatSession
    from videollm.models.hub import load

    pid, texts = run(scenario)
    assert gone(pid)
    session = ChatSession(*load("tiny"))
    session.add(clip)
    assert texts == [session.ask(question).text for question in ("What is in the video?", "And what do you hear?")]


@pytest.mark.slow
def test_one_that_hangs_is_ended_and_started_again():
    async def scenario(worker):
        await worker.ready()
        turn = await worker.ask(worker.open(), "tell all", **LONG)
        before = worker.pid
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(UnavailableError, match="said nothing for 3 s, was ended and is being started again"):
            await turn.finished()
        assert (await (await worker.ask(worker.open(), "who are you?")).finished()).text
        assert gone(before)

    run(scenario, WorkerLimits(silent_seconds=3.0))


@pytest.mark.slow
def test_told_to_end_while_it_loads_it_ends_at_once():
    async def scenario():
        worker = ModelWorker().start()
        await until(lambda: worker.pid is not None)
        pid, began = worker.pid, time.monotonic()
        await asyncio.to_thread(worker.close, 30.0)
        assert time.monotonic() - began < 10 and gone(pid)
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


@pytest.mark.slow
def test_over_http_the_service_says_503_and_serves_again_by_itself(tmp_path):
    clip = good(tmp_path)
    command = [sys.executable, "-m", "videollm", "serve", "--port", "0"]
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
                    body = {"model": "tiny", "messages": messages, **options}
                    return http.post("/v1/chat/completions", json=body)

                healthy(200)
                media_id = http.post("/v1/media", params={"name": "a.mp4"}, content=clip.read_bytes()).json()["id"]
                part = {"type": "video_url", "video_url": {"url": f"media:{media_id}"}}
                said = [{"role": "user", "content": [part, {"type": "text", "text": "What is in the video?"}]}]
                first = ask(said).raise_for_status().json()["choices"][0]["message"]["content"]
                said += [{"role": "assistant", "content": first}, {"role": "user", "content": "And what do you hear?"}]
                long = {"max_tokens": 250, "temperature": 2.0, "seed": 1, "stream": True}
                children = psutil.Process(service.pid).children()
                [engine] = [child for child in children if "engine_process" in " ".join(child.cmdline())]
                body = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me all."}], **long}
                with http.stream("POST", "/v1/chat/completions", json=body) as stream:
                    lines = stream.iter_lines()
                    next(line for line in lines if line)
                    engine.kill()
                    rest = "".join(lines)
                assert "was killed by SIGKILL and is being started again; ask again" in rest and "[DONE]" not in rest
                healthy(503)
                healthy(200)
                assert [one["id"] for one in http.get("/v1/media").json()["data"]] == [media_id]
                second = ask(said).raise_for_status().json()["choices"][0]["message"]["content"]
                assert second == ask(said).raise_for_status().json()["choices"][0]["message"]["content"]
                assert "videollm_restarts_total 1" in http.get("/metrics").text
        finally:
            service.terminate()
