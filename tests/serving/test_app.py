"""The service as programs use it: the official client unchanged, every route behind the door, errors of one line."""

import asyncio
import base64
import json
import socket
from collections import Counter
from functools import partial
from types import SimpleNamespace

import httpx
import pytest

from tests.cli.bad_files import good, written
from tests.serving.served import KEY, MODEL, OTHER_KEY, QUESTION, Served, data_url, openai, shown, until
from tests.small_model import ENDLESS_TOKENS, endless_model, words_for
from videollm import errors
from videollm.chat.session import ChatSession
from videollm.serving.access import NO_KEY, SHORTEST_KEY_CHARACTERS, hosts_for, is_loopback
from videollm.serving.app import routes, service
from videollm.serving.errors_to_status import STATUS, status_of
from videollm.serving.model_worker import ModelWorker
from videollm.serving.protocol import ChatRequest
from videollm.serving.uploads import UploadStore


@pytest.fixture(scope="module")
def served():
    one = Served()
    yield one
    one.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return good(tmp_path_factory.mktemp("clip"))


def alone(clip, *questions, **options):
    session = ChatSession(*MODEL)
    session.add(clip)
    return [session.ask(question, **options).text for question in questions]


# -- answers


def test_an_answer_about_a_video(served, clip):
    answer = served.client.chat.completions.create(model="small", messages=[shown(clip)], max_tokens=20)
    assert answer.choices[0].message.content == alone(clip, "what is it", max_new_tokens=20)[0]
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 20 and answer.usage.prompt_tokens > 10
    assert answer.coverage[0]["sentence"].startswith("saw 8 of ")  # what OpenAI's answers do not say


def test_a_stream_joined_is_the_answer_and_tells_its_usage(served, clip):
    stream = served.client.chat.completions.create(
        model="small", messages=[shown(clip)], max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == alone(clip, "what is it", max_new_tokens=40)[0]
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 1
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage.total_tokens > 0


def test_the_next_turn_of_a_conversation_is_found_again(served, clip):
    messages = [shown(clip)]
    first = served.client.chat.completions.create(model="small", messages=messages, max_tokens=20)
    open_before = set(served.worker.conversations)
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "then?"},
    ]
    second = served.client.chat.completions.create(model="small", messages=messages, max_tokens=20)
    assert set(served.worker.conversations) <= open_before
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens
    assert second.choices[0].message.content == alone(clip, "what is it", "then?", max_new_tokens=20)[1]
    # Told otherwise, it is another conversation, and answered as one.
    messages[1] = {"role": "assistant", "content": "a lie"}
    served.client.chat.completions.create(model="small", messages=messages, max_tokens=20)
    assert len(set(served.worker.conversations) - open_before) == 1


def test_a_file_uploaded_once_serves_many_questions_and_outlives_its_deletion(served, clip):
    put = served.http.post("/v1/media", params={"name": "../../etc/a.mp4"}, content=clip.read_bytes())
    assert put.status_code == 201
    media = put.json()
    assert media["name"] == "a.mp4" and media["bytes"] == clip.stat().st_size
    part = {"type": "video_url", "video_url": {"url": f"media:{media['id']}"}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "what is it"}]}]
    answer = served.client.chat.completions.create(model="small", messages=messages, max_tokens=20)
    assert answer.choices[0].message.content == alone(clip, "what is it", max_new_tokens=20)[0]
    assert "of a.mp4" in answer.coverage[0]["sentence"]
    assert [one["id"] for one in served.http.get("/v1/media").json()["data"]] == [media["id"]]
    assert served.http.get(f"/v1/media/{media['id']}").json() == media
    assert served.http.delete(f"/v1/media/{media['id']}").json()["deleted"] is True
    assert served.http.get(f"/v1/media/{media['id']}").status_code == 404
    messages += [
        {"role": "assistant", "content": answer.choices[0].message.content},
        {"role": "user", "content": "then?"},
    ]
    for conversation in list(served.worker.conversations.values()):
        served.worker.drop(conversation)  # as if memory had been short: it is decoded again
    again = served.client.chat.completions.create(model="small", messages=messages, max_tokens=20)
    assert again.choices[0].message.content == alone(clip, "what is it", "then?", max_new_tokens=20)[1]


def test_a_system_message_an_image_and_a_sound(served, tmp_path):
    import numpy as np
    from PIL import Image

    from videollm.clips import Waveform
    from videollm.media.write import write_sound

    picture = tmp_path / "a.png"
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(picture)
    sound = write_sound(tmp_path / "a.wav", Waveform(np.full((1, 8000), 0.1, np.float32), 8000))
    content = [
        {"type": "image_url", "image_url": {"url": data_url(picture, "image/png")}},
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode(sound.read_bytes()).decode(), "format": "wav"},
        },
        {"type": "text", "text": "what is it"},
    ]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    answer = served.client.chat.completions.create(model="small", messages=messages, max_tokens=10)
    assert [one["kind"] for one in answer.coverage] == ["image", "audio"]


def test_tools_are_called_by_the_service_itself(served, clip):
    tools = served.http.get("/v1/tools").json()["data"]
    assert [tool["function"]["name"] for tool in tools] == ["narrate", "search", "look", "listen", "chapters"]

    def asked(messages, **options):
        return served.client.chat.completions.create(model="small", messages=messages, max_tokens=8, **options)

    answer = asked(QUESTION, tools=tools, tool_choice="auto")
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.choices[0].message.tool_calls is None
    stream = list(asked(QUESTION, tools=tools, stream=True))
    last = next(chunk for chunk in stream if chunk.choices[0].finish_reason is not None)
    told = [chunk.model_extra["round"] for chunk in stream if "round" in chunk.model_extra]
    for rounds in (answer.rounds, last.rounds):
        assert [one["type"] for one in rounds] == ["tool_call", "tool_result"] * (len(rounds) // 2)
        assert {one["name"] for one in rounds[::2]} <= {tool["function"]["name"] for tool in tools}
    assert [one["type"] for one in told] == [one["type"] for one in last.rounds]
    # Not asked for, none is called.
    for options in ({}, {"tools": tools, "tool_choice": "none"}, {"tools": []}):
        without = asked([shown(clip, "tools?")], **options)
        assert without.rounds == [] and without.choices[0].message.content == alone(clip, "tools?", max_new_tokens=8)[0]


@pytest.mark.parametrize("stream", [False, True])
def test_one_field_lets_the_model_call_them(served, clip, monkeypatch, stream):
    """The model's choice is put into its mouth; the rest is real."""
    chosen = ["look", None, "answer", None]  # each time with the question and without
    monkeypatch.setattr(
        "videollm.chat.choice._scores", lambda *given: dict.fromkeys(given[-1], 0.0) | {chosen.pop(0): 9.0}
    )
    options = {"model": "small", "messages": [shown(clip, "what is at 0:01?")], "max_tokens": 4}
    answer = served.client.chat.completions.create(**options, stream=stream, extra_body={"service_tools": True})
    if stream:
        pieces = list(answer)
        told = [piece.model_extra["round"]["type"] for piece in pieces if "round" in piece.model_extra]
        assert told == ["tool_call", "tool_result"]
        answer = next(piece for piece in pieces if piece.choices[0].finish_reason is not None)
    call, result = answer.rounds
    assert (call["name"], call["arguments"]["start_seconds"]) == ("look", 0.0) and "frames" in result["content"]
    assert answer.used[0]["how"] == "seen" and not chosen
    none = ChatRequest(model="small", messages=QUESTION, service_tools=True, tool_choice="none")
    assert not none.calls_tools and not ChatRequest(model="small", messages=QUESTION).calls_tools


def function(parameters=None, name="weather"):
    about = {"name": name, "description": "Tell the weather."}
    return {"type": "function", "function": about if parameters is None else about | {"parameters": parameters}}


WEATHER = function({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


def called(*ids, arguments='{"city": "ulm"}'):
    one = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [{**one, "id": each} for each in ids or ("a",)]}


def back(call_id, content="rain"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def deep(levels):
    return {"a": deep(levels - 1)} if levels else {}


@pytest.fixture
def says(monkeypatch):
    return words_for(*MODEL, monkeypatch)


CALL = '{"name": "weather", "parameters": {"city": "ulm"}}'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("known", [True, False], ids=["goes on", "came from elsewhere"])
def test_a_client_s_own_tool_is_called_by_the_client(served, clip, says, stream, known):
    """The loop that OpenAI documents, with its client; also where another service gave the call."""

    def asked(messages):
        answer = served.client.chat.completions.create(
            model="small", messages=messages, tools=[WEATHER], max_tokens=90, stream=stream
        )
        if not stream:
            return answer.choices[0].message, answer.choices[0].finish_reason, answer
        chunks = list(answer)
        (last,) = [one for one in chunks if one.choices[0].finish_reason]
        text = "".join(one.choices[0].delta.content or "" for one in chunks) or None
        said = SimpleNamespace(content=text, tool_calls=last.choices[0].delta.tool_calls)
        return said, last.choices[0].finish_reason, last

    says += [CALL, "it rains.", "yes."]
    question = f"what is the weather in ulm, {stream} {known}?"
    messages = [shown(clip, question)]
    before = set(served.worker.conversations)
    said, why, _ = asked(messages)
    (call,) = said.tool_calls
    assert (why, said.content, call.function.name) == ("tool_calls", None, "weather")
    assert json.loads(call.function.arguments) == {"city": "ulm"}
    call_id = call.id if known else "call_of_somebody_else"
    turn = {"id": call_id, "type": "function", "function": call.function.model_dump()}
    messages += [{"role": "assistant", "content": None, "tool_calls": [turn]}, back(call_id)]
    said, why, whole = asked(messages)
    assert (said.content, said.tool_calls, why) == ("it rains.", None, "stop")
    assert [one["type"] for one in whole.rounds] == ["tool_call", "tool_result"] and whole.rounds[1][
        "content"
    ] == "rain"
    messages += [{"role": "assistant", "content": said.content}, {"role": "user", "content": "really?"}]
    assert asked(messages)[0].content == "yes."
    opened = [served.worker.conversations[one] for one in set(served.worker.conversations) - before]
    asked_there = [[one.question for one in conversation.exchanges] for conversation in opened]
    assert sorted(asked_there) == ([] if known else [[]]) + [[question, "really?"]]


def test_a_call_that_waits_outlives_the_session(served, says):
    says += [CALL, "it rains."]
    messages = [{"role": "user", "content": "and in ulm?"}]
    tools = [WEATHER, *served.http.get("/v1/tools").json()["data"]]
    ask = partial(served.client.chat.completions.create, model="small", tools=tools, max_tokens=90)
    answer = ask(messages=messages)
    messages += [answer.choices[0].message, back(answer.choices[0].message.tool_calls[0].id)]
    for conversation in list(served.worker.conversations.values()):
        served.worker.drop(conversation)
    assert ask(messages=messages).choices[0].message.content == "it rains."


def test_a_tool_of_the_client_may_have_the_name_of_one_of_ours(served, says):
    says.append('{"name": "search", "parameters": {"city": "ulm"}}')
    mine = function(WEATHER["function"]["parameters"], "search")
    answer = served.client.chat.completions.create(model="small", messages=QUESTION, tools=[mine], max_tokens=90)
    assert answer.choices[0].message.tool_calls[0].function.name == "search"


def test_the_same_file_in_another_conversation_is_not_encoded_again(clip):
    """For the same key; another's conversations tell nothing of it."""
    one = Served(KEY, OTHER_KEY)
    try:
        found = []
        for key, text in ((KEY, "a"), (KEY, "b"), (OTHER_KEY, "a")):
            client = one.client.with_options(api_key=key)
            client.chat.completions.create(model="small", messages=[shown(clip, text)], max_tokens=4)
            conversation = list(one.worker.conversations.values())[-1]
            found.append(conversation.exchanges[-1].answer.timings.encoded_clips)
        assert found == [1, 0, 1]
    finally:
        one.close()


def test_the_model_is_listed(served):
    assert [model.id for model in served.client.models.list()] == ["small"]
    one = served.client.models.retrieve("small")
    assert one.owned_by == "videollm" and one.hears is True and one.calls_tools is False
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("gpt-4o")


# -- what is refused


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "gpt-4o"}, 404, "no model 'gpt-4o'"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, 400, "the last message must be the user's"),
        ({"messages": [*QUESTION, {"role": "system", "content": "x"}, *QUESTION]}, 400, "must be the first"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "empty"),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, 400, "control character"),
        ({"messages": [{"role": "user", "content": "long " * 2000}]}, 400, "question"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": 1e999}, 400, ""),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"n": 2}, 400, "n:"),
        ({"tools": [{"type": "function"}]}, 400, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": "get weather"}}]}, 400, "tools.0.function.name"),
        ({"tools": [WEATHER, WEATHER]}, 400, "'weather' is there twice"),
        ({"tools": [function({"properties": [1]})]}, 400, "properties"),
        ({"tools": [function({"properties": {"a": {"title": "x" * 17_000}}})]}, 400, "16,384 characters"),
        ({"tools": [function({"properties": {"a": deep(20)}})]}, 400, "nested more than 16 deep"),
        ({"tools": [{"type": "function", "function": {"name": "look"}}]}, 400, "'chapters' is missing"),
        ({"tools": [], "tool_choice": "required"}, 400, "tool_choice"),
        ({"functions": [{"name": "look"}]}, 400, "functions"),
        (
            {"messages": [*QUESTION, {"role": "tool", "content": "x", "tool_call_id": "1"}]},
            400,
            "answers a call before",
        ),
        ({"messages": [*QUESTION, {"role": "assistant", "tool_calls": [{}]}, *QUESTION]}, 400, "tool_calls.0.id"),
        ({"messages": [*QUESTION, called(), *QUESTION]}, 400, "the call 'a' gave back must come first"),
        ({"messages": [*QUESTION, called()]}, 400, "the last message must be"),
        ({"messages": [*QUESTION, called(), back("b")]}, 400, "answers a call before"),
        ({"messages": [*QUESTION, called(), back("a"), back("a")]}, 400, "answers a call before"),
        ({"messages": [*QUESTION, called("a", "b"), back("b")]}, 400, "the call 'a' gave back is missing"),
        ({"messages": [*QUESTION, called("a", "a")]}, 400, "two calls have the id 'a'"),
        ({"messages": [*QUESTION, called(arguments="[]"), back("a")]}, 400, "a flat JSON object"),
        ({"messages": [*QUESTION, called(arguments="{"), back("a")]}, 400, "a flat JSON object"),
        ({"messages": [{**QUESTION[0], "tool_calls": called()["tool_calls"]}]}, 400, "only the assistant calls"),
        ({"messages": [*QUESTION, called(), back("a", "x " * 5000)]}, 400, "ask a shorter one"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages.0.content"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"seed": 2**70}, 400, "seed"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_one_line(served, change, status, words):
    body = {"model": "small", "messages": QUESTION, "max_tokens": 5, **change}
    for stream in (False, True):
        text = json.dumps({**body, "stream": stream})
        answer = served.http.post("/v1/chat/completions", content=text, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        message = answer.json()["error"]["message"]
        assert words in message and "\n" not in message and len(message) < 700
    assert served.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=5).usage


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.mp4",
        "https://example.org/a.mp4",
        "http://2130706433/",
        "https://[::1]/a.mp4",
        "https://user:password@example.org/a.mp4",
        "file:///etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "media:../../etc/passwd",
        "media:AAAAAAAAAAAAAAAAAAAAAAAA",
        "data:video/mp4,plain",
        "data:video/mp4;base64,!!!",
        "data:video/mp4;base64,",
        "concat:/etc/passwd",
        "",
    ],
)
def test_no_address_is_fetched_and_no_path_is_read(served, url):
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "what?"}]
    with pytest.raises(openai.APIStatusError) as caught:
        served.client.chat.completions.create(model="small", messages=[{"role": "user", "content": content}])
    assert caught.value.status_code in (400, 404)
    assert "passwd" not in str(caught.value.body)


def test_files_that_cannot_be_decoded_are_refused_and_not_kept(served, tmp_path):
    kept = served.store.held_bytes
    open_before = set(served.worker.conversations)
    for body in (b"no video at all" * 99, b"\0\0\0\x18ftypisom" + bytes(500), b"#EXTM3U\nfile:///etc/passwd\n"):
        bad = written(tmp_path, "bad.mp4", body)
        with pytest.raises(openai.BadRequestError) as caught:
            served.client.chat.completions.create(model="small", messages=[shown(bad)])
        assert "/" not in caught.value.body["message"].replace("and/or", ""), "no path of this machine"
    until(lambda: served.store.held_bytes == kept)
    assert set(served.worker.conversations) == open_before


def test_json_that_is_none_or_too_deep(served):
    kind = {"content-type": "application/json"}
    for text in ("", "{", "[" * 100_000, '{"a":' * 50_000, "null", "[]", '"x"', "\xff"):
        answer = served.http.post("/v1/chat/completions", content=text.encode("latin-1"), headers=kind)
        assert answer.status_code == 400, (text[:20], answer.text)
    for other in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        body = json.dumps({"model": "small", "messages": QUESTION})
        answer = served.http.post("/v1/chat/completions", content=body, headers={"content-type": other})
        assert answer.status_code == 400 and "JSON" in answer.text


def test_uploads_have_a_limit_before_they_are_read(served):
    headers = {"content-length": "10000001"}
    with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as raw:
        raw.sendall(b"POST /v1/media HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000001\r\n\r\n")
        raw.settimeout(10)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert served.http.post("/v1/media", content=iter([b"x"])).status_code == 411
    assert served.http.post("/v1/media", content=b"").status_code == 400
    assert headers and served.store.of(NO_KEY) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_other_sites_cannot_reach_it_through_a_browser(served, headers, status):
    body = {"model": "small", "messages": QUESTION}
    answer = served.http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == status and answer.json()["error"]["message"]


def test_unknown_addresses_and_methods(served):
    for path in (
        "/",
        "/v1",
        "/docs",
        "/redoc",
        "/../../etc/passwd",
        "/v1/media/..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=x",
    ):
        assert served.http.get(path).status_code in (404, 405), path
    assert served.http.get("/v1/chat/completions").status_code == 405
    assert served.http.put("/v1/media/x", content=b"x").status_code == 405


def test_headers_that_browsers_obey_are_on_every_answer(served):
    for answer in (served.http.get("/healthz"), served.http.get("/nothing"), served.http.get("/v1/models")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in answer.headers


# -- the key


def all_routes():
    store = UploadStore()
    app = routes(ModelWorker(load=lambda choice, tell: MODEL), store, Counter())
    store.close()
    found = [(method, path) for path, item in app.openapi()["paths"].items() for method in item]
    return [*sorted(found), ("get", "/openapi.json")]


@pytest.fixture(scope="module")
def locked():
    one = Served(KEY, OTHER_KEY)
    yield one
    one.close()


@pytest.mark.parametrize(("method", "path"), all_routes())
def test_every_route_asks_for_the_key(locked, method, path):
    path = path.replace("{model}", "small").replace("{media_id}", "x")
    content = b"{}" if method == "post" else None
    wrong = [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {KEY}x"}, {"authorization": KEY},
             {"authorization": "Basic !!!"}, {"x-api-key": KEY}]  # fmt: skip
    for headers in wrong:
        answer = locked.http.request(method, path, headers=headers, content=content)
        assert answer.status_code == (200 if path == "/healthz" else 401), (headers, answer.text)
    basic = base64.b64encode(f"anyone:{KEY}".encode()).decode()
    for right in (f"Bearer {KEY}", f"Basic {basic}"):
        answer = locked.http.request(method, path, headers={"authorization": right}, content=content)
        assert answer.status_code != 401


def test_the_routes_are_these(locked):
    assert all_routes() == [
        ("delete", "/v1/media/{media_id}"),
        ("get", "/healthz"),
        ("get", "/metrics"),
        ("get", "/v1/media"),
        ("get", "/v1/media/{media_id}"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{model}"),
        ("get", "/v1/tools"),
        ("post", "/v1/chat/completions"),
        ("post", "/v1/media"),
        ("post", "/v1/moments"),
        ("post", "/v1/narrations"),
        ("get", "/openapi.json"),
    ]
    assert locked.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=5).usage


def test_other_machines_need_a_key_and_a_long_one():
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(errors.ConfigError, match="other machines can reach this: give an API key"):
            hosts_for(host)
        assert hosts_for(host, KEY) is None
    with pytest.raises(errors.ConfigError, match="could be guessed"):
        hosts_for("127.0.0.1", "x" * (SHORTEST_KEY_CHARACTERS - 1))
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host) and hosts_for(host)


# -- errors, load, leaving


def test_every_error_has_a_status():
    def below(kind):
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    tree = [kind for kind in below(errors.VideoLLMError) if kind.__module__ == errors.__name__]
    found = {kind.__name__: status_of(kind.__new__(kind)) for kind in tree}
    assert found["MediaUnreadableError"] == found["ContextFullError"] == 400
    assert (found["BusyError"], found["NotYoursError"], found["MediaLimitError"]) == (429, 404, 413)
    assert set(STATUS.values()) <= {400, 404, 413, 429, 500, 503}


def test_a_client_that_vanishes_is_not_answered_any_more():
    one = Served(model=endless_model(), at_once=1, waiting=0, new_tokens=ENDLESS_TOKENS)
    endless = {"model": "small", "messages": QUESTION, "max_tokens": ENDLESS_TOKENS - 1}
    try:
        stream = one.client.chat.completions.create(**endless, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            one.client.chat.completions.create(model="small", messages=QUESTION)
        assert "which is the limit" in caught.value.body["message"]
        assert caught.value.response.headers["retry-after"] == "1"
        stream.response.close()
        until(lambda: not one.worker.answering)
        with socket.create_connection(("127.0.0.1", int(one.address.rpartition(":")[2]))) as raw:
            body = json.dumps(endless).encode()
            head = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode() + body)
            until(lambda: one.worker.answering)
        until(lambda: not one.worker.answering)
        assert one.worker.counts.turns["stopped"] == 2
        assert one.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=5).usage
        text = one.http.get("/metrics").text
        assert 'videollm_turns_total{finish="stopped"} 2' in text and "videollm_refused_total 1" in text
    finally:
        one.close()


def test_a_body_that_trickles_in_is_cut_off(monkeypatch):
    from videollm.serving import access

    monkeypatch.setattr(access, "SLOW_SECONDS", 0.2)
    one = Served()
    try:
        with socket.create_connection(("127.0.0.1", int(one.address.rpartition(":")[2]))) as raw:
            raw.sendall(b"POST /v1/media HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc")
            raw.settimeout(30)
            assert raw.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert one.store.of(NO_KEY) == []
        assert one.http.get("/healthz").json() == {"status": "ready"}
    finally:
        one.close()


def test_health_says_what_is_missing():
    def load(choice, tell):
        raise errors.ModelNotFoundError("no model 'small'")

    async def asked(path):
        worker = ModelWorker(load=load).start()
        store = UploadStore()
        transport = httpx.ASGITransport(service(worker, store, hosts_for("127.0.0.1")))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            while worker.state != "failed":
                await asyncio.sleep(0.01)
            answer = await http.get(path)
        await asyncio.to_thread(worker.close, 0)
        store.close()
        return answer

    assert asyncio.run(asked("/healthz")).json() == {"status": "failed"}
    answer = asyncio.run(asked("/v1/models"))
    assert answer.status_code == 503 and answer.json()["error"]["message"] == "no model 'small'"
