"""Two engines of `tiny` behind the one app, as Ray Serve deploys them from the configuration that is given."""

import json
import os
import re
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

pytest.importorskip("ray.serve", reason="pip install 'videollm[ray]' to test several machines")

from tests.serving.served import KEY, openai
from videollm.errors import ConfigError
from videollm.serving.listening import bound
from videollm.serving.ray_serve import Settings, build

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "demo" / "ray_serve.yaml"
CLIPS = ROOT / "videollm" / "assets" / "clips"


def test_the_configuration_is_one_and_a_key_is_asked_for(monkeypatch):
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    (application,) = config.applications
    settings = Settings.model_validate(application.args)
    assert application.import_path == "videollm.serving.ray_serve:build" and settings.workers == 2
    monkeypatch.delenv("VIDEOLLM_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="give an API key"):
        build(settings)
    monkeypatch.setenv("VIDEOLLM_API_KEY", "short")
    with pytest.raises(ConfigError, match="could be guessed"):
        build(settings)


def engine_processes():
    """By what Ray calls the processes of replicas."""
    return [one for one in psutil.process_iter(["cmdline"]) if "EngineReplica" in " ".join(one.info["cmdline"] or ())]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_engines_of_tiny_behind_ray_serve(monkeypatch):
    """Answers, sticky conversations, every path behind the key, and the death of an engine."""
    import ray
    from ray import serve

    monkeypatch.setenv("VIDEOLLM_API_KEY", KEY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default
    sock = bound("127.0.0.1", 0)
    port = sock.getsockname()[1]
    sock.close()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        application = yaml.safe_load(CONFIG.read_text())["applications"][0]
        serve.run(build(Settings(**application["args"])), name="videollm", route_prefix="/")
        address = f"http://127.0.0.1:{port}"
        http = httpx.Client(base_url=address, timeout=120, headers={"authorization": f"Bearer {KEY}"})

        def until(condition, seconds=240.0):
            end = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < end, "waited in vain"
                time.sleep(0.5)

        def metric(name):
            return float(re.search(rf"^videollm_{name} (\S+)", http.get("/metrics").text, re.MULTILINE)[1])

        until(lambda: http.get("/healthz").status_code == 200)
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=120)

        # The key, on every path that there is.
        paths = [path for path in http.get("/openapi.json").json()["paths"] if path != "/healthz"]
        assert len(paths) >= 8
        for path in [*paths, "/openapi.json", "/nothing"]:
            for headers in ({}, {"authorization": "Bearer a wrong key, but a long one"}):
                assert httpx.get(f"{address}{path}", headers=headers).status_code == 401, path
        assert httpx.get(f"{address}/healthz").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="a wrong key, but a long one").models.list()

        # Four conversations about an upload, over two engines; each goes on where its keys and values are.
        media = http.post("/v1/media", params={"name": "two.mp4"}, content=(CLIPS / "two_things.mp4").read_bytes())
        part = {"type": "video_url", "video_url": {"url": f"media:{media.json()['id']}"}}
        talks = []
        for number in range(4):
            words = "How many things are there?" + " " * number
            messages = [{"role": "user", "content": [part, {"type": "text", "text": words}]}]
            answer = client.chat.completions.create(model="tiny", messages=messages)
            assert answer.choices[0].message.content == "Two."
            messages += [{"role": "assistant", "content": "Two."}, {"role": "user", "content": "Which sound is heard?"}]
            talks.append(messages)

        def go_on(messages):
            stream = client.chat.completions.create(
                model="tiny", messages=messages, stream=True, stream_options={"include_usage": True}
            )
            chunks = list(stream)
            text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
            assert text == "I hear something like music."
            return chunks[-1].usage.prompt_tokens_details.cached_tokens

        assert all(go_on(messages) > 40 for messages in talks)
        assert metric("conversations") == 4

        # An engine is killed: its conversations go on at the other one, or at the next; nothing is lost.
        engines = engine_processes()
        assert len(engines) == 2
        os.kill(engines[0].pid, signal.SIGKILL)
        until(lambda: metric("restarts_total") >= 1)
        for messages in talks:
            messages += [
                {"role": "assistant", "content": "I hear something like music."},
                {"role": "user", "content": "How many things are there?"},
            ]
            answer = client.chat.completions.create(model="tiny", messages=messages)
            assert answer.choices[0].message.content == "Two."
        until(lambda: len(engine_processes()) == 2)

        # A client that goes away is not answered on.
        before = metric('turns_total{finish="stopped"}'.replace("{", r"\{").replace("}", r"\}"))
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me everything."}], "stream": True}
        body |= {"temperature": 2.0, "max_tokens": 250, "seed": 3}
        for _ in range(3):
            with http.stream("POST", "/v1/chat/completions", content=json.dumps(body), headers={
                "content-type": "application/json"
            }) as streamed:  # fmt: skip
                next(streamed.iter_lines())
        until(lambda: metric("answering") == 0 and metric("waiting") == 0, 20)
        assert metric(r'turns_total\{finish="stopped"\}') > before
    finally:
        serve.shutdown()
        ray.shutdown()
