"""A service on a port of this machine, in threads of this process, with a small model; and what is sent to it."""

import base64
import threading
import time

import httpx
import pytest

from tests.small_model import small_model
from videollm.serving.access import hosts_for
from videollm.serving.app import service
from videollm.serving.listening import address_of, bound, server_of
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits
from videollm.serving.uploads import StoreLimits, UploadStore

openai = pytest.importorskip("openai", reason="pip install openai to test with the official client")

MODEL = small_model()
KEY, OTHER_KEY = "a key that is long enough", "another key that is long enough"


class Served:
    """A service on a port of this machine, in threads of this process."""

    def __init__(self, *keys, model=MODEL, fetcher=None, moments=None, encoder=None, **limits):
        choice = ModelChoice("small", encoder=encoder)
        self.worker = ModelWorker(choice, WorkerLimits(**limits), load=lambda choice, tell: model).start()
        self.store = UploadStore(StoreLimits(file_bytes=10_000_000))
        sock = bound("127.0.0.1", 0)
        self.address = address_of(sock, "127.0.0.1")
        hosts = hosts_for("127.0.0.1", *keys)
        app = service(self.worker, self.store, hosts, frozenset(keys), fetcher=fetcher, moments=moments)
        self.server = server_of(app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]}, daemon=True)
        self.thread.start()
        self.http = httpx.Client(base_url=self.address, timeout=120)
        self.client = openai.OpenAI(base_url=f"{self.address}/v1", api_key=keys[0] if keys else "none", max_retries=0)
        until(lambda: self.server.started and self.worker.runtime is not None)

    def close(self):
        self.http.close()
        self.client.close()
        self.server.should_exit = True
        self.thread.join(30)
        self.worker.close(0)
        self.store.close()


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def data_url(path, kind="video/mp4"):
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def shown(clip, text="what is it"):
    return {
        "role": "user",
        "content": [{"type": "video_url", "video_url": {"url": data_url(clip)}}, {"type": "text", "text": text}],
    }


QUESTION = [{"role": "user", "content": "what?"}]
