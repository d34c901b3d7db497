"""The page without a browser: which addresses there are, what is offered, what is kept apart. See also tests/e2e."""

import asyncio
import html
import json
import os
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio", reason="pip install 'videollm[demo]'")
import httpx
import torch

from tests.small_model import small_model
from videollm.serving.access import hosts_for
from videollm.serving.answer_text import messages_of
from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits
from videollm.serving.ui import Page, alert_html, choices_of, delete_stale, known_path
from videollm.serving.uploads import UploadStore

MODEL = small_model(context_tokens=8192)
with torch.no_grad():  # never the likeliest word: its answers end at the limit
    MODEL[0].get_output_embeddings().weight[MODEL[0].config.eos_token_id] = 0.0
KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def pages():
    """The page's application, free and behind a key."""
    limits = WorkerLimits(new_tokens=8000)
    worker = ModelWorker(ModelChoice("small"), limits, load=lambda choice, tell: MODEL).start()
    store = UploadStore()
    page = Page(worker, store, [ModelChoice("small")])
    inner = page.app(page.rules(hosts_for("127.0.0.1", None), None))
    locked = type(inner)(inner.app, page.rules(None, KEY))
    yield inner, locked, page
    worker.close(0)
    store.close()


def asked(app, method, path, **options):
    async def ask():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as http:
            return await http.request(method, path, **options)

    return asyncio.run(ask())


def test_the_page_is_there_and_gives_its_cookie(pages):
    free, _, _ = pages
    answer = asked(free, "GET", "/")
    assert answer.status_code == 200 and "videollm" in answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("videollm=") and "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    known = asked(free, "GET", "/", headers={"cookie": cookie.split(";")[0]})
    assert "set-cookie" not in known.headers
    assert asked(free, "GET", "/config").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/file=pyproject.toml", "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd", "/gradio_api/proxy=https://example.org", "/gradio_api/stream/x/y/z/playlist.m3u8",
        "/gradio_api/deep_link", "/gradio_api/process_recording", "/gradio_api/vibe-edit", "/gradio_api/run/ask",
        "/gradio_api/call/ask", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/runs",
        "/gradio_api/profiling/traces", "/monitoring", "/monitoring/summary", "/login", "/gradio_api/dev/reload",
        "/gradio_api/component_server", "/openapi.json", "/docs", "/assets/../../../etc/passwd",
        "/static//etc/passwd", "/media/../../../etc/passwd", "/media/x", "/custom_component/a",
        "/export/conversation.json", "/export/conversation.exe", "/gradio_api/heartbeat/../file=/etc/passwd",
    ],
)  # fmt: skip
def test_nothing_else_is_there(pages, path):
    free, _, _ = pages
    cookie = {"cookie": "videollm=" + "a" * 43}
    for method in ("GET", "POST"):
        answer = asked(free, method, path, headers=cookie, content=b"" if method == "POST" else None)
        assert answer.status_code in (404, 405, 422, 400), (method, path, answer.status_code)
        assert "root:" not in answer.text


def test_every_route_of_gradio_that_is_let_through_is_one_that_the_page_needs(pages):
    """If an update of Gradio brings routes, they are closed until somebody has looked at them."""
    free, _, _ = pages
    outer = free.app.__closure__
    app = next(cell.cell_contents for cell in outer if hasattr(cell.cell_contents, "routes"))
    mounted = next(route.app for route in app.routes if getattr(route, "path", None) == "" and hasattr(route, "app"))
    paths = {path for route in _flat(mounted.routes) if (path := getattr(route, "path", None))}
    assert len(paths) > 40
    open_paths = {path for path in paths if known_path(path)}
    assert open_paths <= {
        "/", "/config", "/config/", "/theme.css", "/gradio_api/theme.css", "/favicon.ico", "/robots.txt",
        "/manifest.json", "/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/queue/join",
        "/gradio_api/queue/data", "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/reset/",
        "/gradio_api/startup-events", "/assets/{path:path}", "/static/{path:path}", "/svelte/{path:path}",
        "/gradio_api/heartbeat/{session_hash}",
    }, open_paths  # fmt: skip


def _flat(routes):
    for route in routes:
        yield route
        for inner in ("routes", "original_router"):  # FastAPI keeps included routers as one
            below = getattr(route, inner, None)
            yield from _flat(getattr(below, "routes", below) or [])


def test_behind_a_key_nothing_is_open(pages):
    _, locked, _ = pages
    for path in (
        "/",
        "/config",
        "/gradio_api/queue/data",
        "/theme.css",
        "/media/x",
        "/export/conversation.md",
        "/static/a",
    ):
        answer = asked(locked, "GET", path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic ")
    assert asked(locked, "GET", "/", auth=("me", KEY)).status_code == 200
    assert asked(locked, "GET", "/", auth=("me", "wrong")).status_code == 401


def test_other_names_and_other_sites(pages):
    free, _, _ = pages
    assert asked(free, "GET", "/", headers={"host": "evil.example"}).status_code == 421
    join = {"path": "/gradio_api/queue/join", "content": b"{}"}
    assert asked(free, "POST", headers={"origin": "http://evil.example"}, **join).status_code == 403
    assert asked(free, "POST", headers={"content-length": "99999999999"}, **join).status_code == 413


def test_a_file_of_this_machine_cannot_be_named_as_an_upload(pages):
    """Gradio's queue takes file paths from the client: ours must have been uploaded."""
    _, _, page = pages

    async def bring(path):
        class Request:
            cookies = {"videollm": "b" * 43}  # noqa: RUF012

        return [update async for update in page.upload([path], Request())]

    target = page.incoming / "link.mp4"
    target.symlink_to("/etc/hostname")
    for path in ("/etc/hostname", str(page.incoming / ".." / "x"), str(target)):
        assert asyncio.run(bring(path)) == [{"alert": "", "drop": None}]
    assert "b" * 43 not in page.visitors
    target.unlink()


def test_stale_uploads_are_deleted(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    os.utime(tmp_path / "old", (1, 1))
    delete_stale(tmp_path, time.time() - 600)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_is_offered_starts_with_what_was_asked_for():
    offered = choices_of(["tiny", "/models/large"], 4, "cpu")
    assert offered[0] == ModelChoice("tiny", 4, "cpu")
    assert {choice.name for choice in offered} == {"tiny", "large"}
    assert len(set(offered)) == len(offered)


def test_errors_are_words():
    assert alert_html([]) == ""
    assert alert_html(["a <b> is"]) == '<div class="alert" role="alert"><p>A &lt;b&gt; is</p></div>'


class Visit:
    """The page on a port of this machine, used as Gradio's script uses it."""

    def __init__(self, app):
        from videollm.serving.listening import address_of, bound, server_of

        sock = bound("127.0.0.1", 0)
        self.server = server_of(app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.address = address_of(sock, "127.0.0.1")
        self.http = httpx.Client(base_url=self.address, timeout=60)
        assert self.http.get("/").status_code == 200
        config = self.http.get("/config").json()
        self.names = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
        self.functions = {
            (self.names.get(target), event): one["id"]
            for one in config["dependencies"]
            for target, event in one["targets"]
            if target is not None
        }

    def close(self):
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)

    def start(self, part, event, *data, session="abc"):
        body = {"data": data, "fn_index": self.functions[part, event], "session_hash": session}
        assert self.http.post("/gradio_api/queue/join", json=body).status_code == 200

    def messages(self, session="abc"):
        """What the queue tells until all is done."""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def done(self, part, event, *data):
        self.start(part, event, *data)
        return [m for m in self.messages() if m["msg"] in ("process_generating", "process_completed")]


@pytest.fixture(scope="module")
def visit(pages):
    one = Visit(pages[0])
    yield one
    one.close()


def test_a_question_is_answered_stopped_and_left_through_the_queue(visit, pages):
    page = pages[2]
    visit.done("example-0", "click")
    (visitor,) = [v for v in page.visitors.values() if v.views]
    assert [view.name for view in visitor.clips] == ["two_things.mp4"]
    source = f"/media/{visitor.clips[0].id}"
    assert visit.http.get(source).headers["content-type"] == "video/mp4"
    assert visit.http.get(source, headers={"range": "bytes=0-9"}).status_code == 206
    assert httpx.get(visit.address + source).status_code == 400, "without the cookie"
    assert httpx.get(visit.address + source, cookies={"videollm": "c" * 43}).status_code == 404

    updates = visit.done("question", "submit", "what is it", 0, 1, 24, False)
    assert len(updates) > 1 and updates[-1]["success"]
    (exchange,) = visitor.conversation.exchanges
    assert exchange.question == "what is it" and exchange.clips == ("two_things.mp4",)
    assert exchange.answer.text in visit.http.get("/export/conversation.md").text
    assert visit.http.get("/export/conversation.json").json()["turns"][0]["answer"] == exchange.answer.text

    # Stopped by its button, while it speaks.
    visit.start("question", "submit", "tell all", 0, 1, 8000, False)
    stopped = False
    for message in visit.messages():
        if message["msg"] == "process_generating" and not stopped and page.worker.answering:
            stopped = True
            visit.start("question", "stop")
    assert stopped
    assert visitor.conversation.exchanges[-1].answer.finish == "stopped"

    # Left: whoever closes the page closes its heartbeat.
    visit.start("question", "submit", "tell all", 0, 1, 8000, False, session="gone")
    with visit.http.stream("GET", "/gradio_api/heartbeat/gone") as heartbeat:
        next(heartbeat.iter_lines())
        for message in visit.messages("gone"):
            if message["msg"] == "process_generating" and page.worker.answering:
                break
    end = time.monotonic() + 20
    while page.worker.answering:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [one.answer.finish for one in visitor.conversation.exchanges] == ["length", "stopped", "stopped"]


def test_a_failed_question_is_one_sentence_and_goes_back_into_the_box(visit, pages):
    updates = visit.done("question", "submit", "a\x00b", 0, 1, 24, False)
    last = json.dumps(updates)
    assert "control character" in last and "Traceback" not in last
    assert updates[-1]["success"]
    assert visit.done("question", "submit", "what is it", 0, 1, 24, False)[-1]["success"]


@pytest.mark.parametrize("trained", [True, False])
def test_models_that_learned_to_call_tools_may_do_so_unless_told_otherwise(monkeypatch, trained):
    monkeypatch.setattr(type(MODEL[1]), "calls_tools", trained)
    choices = [ModelChoice("small"), ModelChoice("other")]
    worker, store = ModelWorker(choices[0], load=lambda choice, tell: MODEL).start(), UploadStore()
    page, visitor = Page(worker, store, choices), SimpleNamespace(cookies={"videollm": "a" * 43})

    async def last(updates):
        return {name: value async for update in updates for name, value in update.items()}

    try:
        for updates in (page.load(visitor), page.switch("other", "full precision", visitor)):
            shown = asyncio.run(last(updates))
            assert shown["calls"].value is trained and ("calls tools" in shown["model"]) is trained
    finally:
        worker.close(0)
        store.close()


def test_calls_of_tools_are_streamed_folded_before_the_words(visit, pages, monkeypatch):
    """The model's choice is put into its mouth; the call, the tool, the answer and the queue are real."""
    chosen = ["look", None, "answer", None]  # each time with the question and without

    def scores(model, tokenizer, cache, logits, words):
        wanted = chosen.pop(0)
        return {word: 9.0 * (word == wanted) for word in words}

    monkeypatch.setattr("videollm.chat.choice._scores", scores)
    updates = visit.done("question", "submit", "what is at 0:02?", 0, 1, 24, True)
    assert updates[-1]["success"] and not chosen
    told = [json.dumps(update) for update in updates]
    title = "look two_things.mp4, 0:00"
    first = next(number for number, update in enumerate(told) if "pending" in update)
    assert "look" in told[first] and "done" in "".join(told[first + 1 :])
    (visitor,) = [v for v in pages[2].visitors.values() if v.views]
    exchange = visitor.conversation.exchanges[-1]
    assert [part.type for part in exchange.answer.rounds] == ["tool_call", "tool_result"]
    shown = next(one for one in messages_of([exchange], visitor.views) if "metadata" in one)
    assert shown["metadata"]["status"] == "done" and title in html.unescape(shown["metadata"]["title"])
    assert json.dumps(shown["metadata"]["title"])[1:-1] in "".join(told)


def test_a_clip_is_narrated_cut_and_searched_through_the_queue(visit, pages):
    page = pages[2]
    (visitor,) = [v for v in page.visitors.values() if v.views]
    view = visitor.clips[0].id
    updates = visit.done("narrate", "click", view)
    assert updates[-1]["success"] and visitor.work is None
    narration = visitor.tracks[view, "narration"]
    assert narration.note == "by small" and {span.view for span in narration.spans} == {view}
    assert (
        narration.spans[0].start_seconds == 0 and narration.spans[-1].end_seconds <= visitor.clips[0].duration_seconds
    )
    saved = visit.http.get(f"/export/narration/{view}.vtt")
    assert saved.text.startswith("WEBVTT") and saved.headers["content-disposition"].endswith('"narration.vtt"')
    assert visit.http.get(f"/export/narration/{view}.jsonl").text.count("\n") == len(narration.spans)
    for path in (f"narration/{view}.exe", "narration/x.vtt", f"found/{view}.vtt", f"chapters/{view}.srt"):
        assert visit.http.get(f"/export/{path}").status_code in (404, 422), path
    stranger = httpx.get(f"{visit.address}/export/narration/{view}.vtt", cookies={"videollm": "c" * 43})
    assert stranger.status_code == 404

    visit.done("chapters", "click", view)
    assert list(visitor.tracks) == [(view, "narration"), (view, "chapters")], "the newest is the last"
    word = max(narration.spans[0].text.split(), key=len)
    visit.done("find", "submit", word)
    assert visitor.tracks["", "found"].title == f"Found: \u201c{word}\u201d"
    assert (page.store.folder / f"index-{visitor.conversation.id}").is_dir()

    for wrong, button, words in (("nobody", "narrate", "there is nothing to narrate"), ("?!", "find", "say in words")):
        last = visit.done(button, "submit" if button == "find" else "click", wrong)[-1]
        assert last["success"] and words in json.dumps(last).lower()

    index = page.store.folder / f"index-{visitor.conversation.id}"
    visit.done("clear", "click")
    end = time.monotonic() + 20
    while index.exists():
        assert time.monotonic() < end, "the index goes with its conversation"
        time.sleep(0.01)
