"""Several workers as one: who gets a conversation, that it goes on elsewhere, and what is summed up."""

import asyncio
import os
import socket
import threading

import pytest

from tests.cli.bad_files import good
from tests.serving.served import KEY, MODEL, openai, shown, until
from videollm.errors import NotYoursError
from videollm.serving.access import hosts_for
from videollm.serving.app import service
from videollm.serving.engine_process import EngineThread
from videollm.serving.listening import address_of, bound, server_of
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits
from videollm.serving.several_workers import SeveralWorkers
from videollm.serving.uploads import UploadStore


class Fragile:
    """Engines in threads that can be made to die, as one in another process does."""

    def __init__(self):
        self.running = []

    def __call__(self, limits):
        engine = EngineThread(lambda choice, tell: MODEL, limits)
        self.running.append(engine)
        return engine


@pytest.fixture(scope="module")
def two():
    engines = [Fragile(), Fragile()]
    limits = WorkerLimits(conversations=3)
    workers = SeveralWorkers([ModelWorker(ModelChoice("small"), limits, engine=one) for one in engines]).start()
    until(lambda: all(worker.runtime is not None for worker in workers.workers))
    yield workers, engines
    workers.close(0)


def test_conversations_are_shared_out_and_stay(two):
    workers, _ = two

    async def talk():
        assert (await workers.ready()).choice.name == "small" and workers.state == "ready" and workers.alive
        opened = [workers.open() for _ in range(4)]
        assert [len(worker.conversations) for worker in workers.workers] == [2, 2]
        assert set(workers.conversations) == {one.id for one in opened} and workers.limits.conversations == 6
        for question in ("what?", "then?"):
            turns = [await workers.ask(one, question, max_new_tokens=5) for one in opened]
            answers = [await turn.finished() for turn in turns]
            assert len({answer.text for answer in answers}) == 1
        assert all(answer.timings.reused_tokens > 0 for answer in answers), "where it was before"
        assert workers.counts.generated_tokens == sum(worker.counts.generated_tokens for worker in workers.workers) > 0
        assert workers.counts.turns["end"] + workers.counts.turns["length"] == 8
        assert len(workers.counts.first_word_seconds) == 8
        assert workers.memory_bytes > 0 and workers.queue_length == workers.answering == 0
        await workers.end(opened[0])
        with pytest.raises(NotYoursError):
            workers.get(opened[0].id)
        for one in opened:  # the first again
            await workers.end(one)

    asyncio.run(talk())


def test_the_same_app_is_in_front(two, tmp_path):
    """Uploads, a conversation that is found again, and the key: nothing of it knows how many engines there are."""
    workers, _ = two
    store, sock = UploadStore(within=tmp_path), bound("127.0.0.1", 0)
    server = server_of(service(workers, store, hosts_for("127.0.0.1", KEY), frozenset({KEY})))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        assert store.folder.parent == tmp_path.resolve()
        client = openai.OpenAI(base_url=f"{address_of(sock, '127.0.0.1')}/v1", api_key=KEY, max_retries=0)
        create = client.chat.completions.create
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="another key, a wrong one").models.list()
        messages = [shown(good(tmp_path))]
        cached = []
        for question in ("then?", "why?"):
            answer = create(model="small", messages=messages, max_tokens=5)
            cached.append(answer.usage.prompt_tokens_details.cached_tokens)
            said = {"role": "assistant", "content": answer.choices[0].message.content}
            messages += [said, {"role": "user", "content": question}]
        assert cached[0] == 0 and cached[1] > 20
        for number in range(7):  # more than are held: the oldest go
            create(model="small", messages=[{"role": "user", "content": f"{number}?"}], max_tokens=3)
        assert len(workers.conversations) <= 6
    finally:
        server.should_exit = True
        thread.join(20)
        store.close()


def test_a_conversation_goes_on_at_another_when_its_own_is_gone(two, monkeypatch):
    workers, engines = two

    async def talk():
        for left in workers.conversations.values():
            await workers.end(left)
        one = workers.open()
        home = next(worker for worker in workers.workers if one.id in worker.conversations)
        first = await (await workers.ask(one, "what?", max_new_tokens=5)).finished()
        number = workers.workers.index(home)
        monkeypatch.setattr(Fragile, "__call__", lambda *_: (_ for _ in ()).throw(OSError("no machine is free")))
        with socket.socket(fileno=os.dup(engines[number].running[-1].connection.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        until(lambda: home.runtime is None)
        assert workers.runtime is not None and workers.alive
        second = await (await workers.ask(one, "then?", max_new_tokens=5)).finished()
        assert one.id not in home.conversations and one.id in workers.conversations
        assert second.timings.reused_tokens == 0 and [e.question for e in one.exchanges] == ["what?", "then?"]
        assert first.token_ids in [m.parts[0].token_ids for m in one.messages if m.role == "assistant"]
        assert workers.counts.restarts >= 1

    asyncio.run(talk())
