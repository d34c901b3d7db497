"""Attacks, each refused with its status and one line; the service answers the next request."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import socket
import struct
import zipfile

import pytest

pytest.importorskip("trustme", reason="pip install trustme to make certificates")

from tests.cli.bad_files import BAD_FILES, good
from tests.serving.https_server import HOST, HttpsServer, new_authority, trusting
from tests.serving.served import KEY, OTHER_KEY, QUESTION, Served, shown, until
from videollm.serving import access, incoming, listening
from videollm.serving.access import Door, Rules
from videollm.serving.fetching import Fetcher

ROUTES_OF_JSON = ("/v1/chat/completions", "/v1/narrations", "/v1/moments")
BY_KEY = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return good(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def inside_and_outside(clip):
    """What must not be reached, and on the same port of another address a host that is allowed."""
    authority = new_authority()
    outside = HttpsServer(authority, {"/a.mp4": clip.read_bytes(), "/page": b"<html>no video</html>"})
    inside = HttpsServer(authority, {"/a.mp4": clip.read_bytes()}, "127.0.0.2", port=outside.port)
    yield inside, outside, authority
    outside.close()
    inside.close()


@pytest.fixture(scope="module")
def leads_to():
    """The addresses that the host's name has, one list a question; the last one stays."""
    return [["127.0.0.1"]]


@pytest.fixture(scope="module")
def locked(inside_and_outside, leads_to):
    _, outside, authority = inside_and_outside

    async def resolve(host, port):
        return leads_to.pop(0) if len(leads_to) > 1 else leads_to[0]

    fetcher = Fetcher(
        [f"{HOST}:{outside.port}"], resolve=resolve, public=lambda a: a == "127.0.0.1", tls=trusting(authority)
    )
    one = Served(KEY, OTHER_KEY, fetcher=fetcher)
    one.http.headers.update(BY_KEY)
    yield one
    one.close()


@pytest.fixture
def served(locked):
    yield locked
    assert locked.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=1).usage
    until(lambda: {upload.owner for upload in locked.store._uploads.values()} <= set(locked.worker.conversations))


def refused(answer, *statuses):
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    message = answer.json()["error"]["message"]
    assert message and "\n" not in message and len(message) < 700 and "Traceback" not in message
    assert "/tmp" not in message and "passwd" not in message and "secret" not in message, message
    return message


def asked_about(served, url, kind="video_url", **options):
    content = [{"type": kind, kind: {"url": url}}, {"type": "text", "text": "what is it"}]
    body = {"model": "small", "messages": [{"role": "user", "content": content}], "max_tokens": 5, **options}
    return served.http.post("/v1/chat/completions", json=body)


def raw(served, request):
    """What comes back for these bytes: status, body, and whether the connection was closed."""
    with socket.create_connection(("127.0.0.1", served.server.servers[0].sockets[0].getsockname()[1])) as sock:
        sock.settimeout(20)
        sock.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := sock.recv(65536)):
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(
            next((x.split(b":")[1] for x in head.lower().split(b"\r\n") if x.startswith(b"content-length")), 0)
        )
        while len(body) < length and (piece := sock.recv(65536)):
            body += piece
    return int(head.split(b" ")[1]) if head else 0, body[:length].decode("utf-8", "replace")


# -- requests for others


def test_addresses_of_every_form(served, inside_and_outside):
    inside, outside, _ = inside_and_outside
    there = f"{HOST}:{outside.port}"
    for url in (
        "http://127.0.0.1/a.mp4", "https://127.0.0.1/a.mp4", f"https://127.0.0.2:{inside.port}/a.mp4",
        "https://2130706433/", "https://017700000001/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/",
        "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::]/", "https://0/",
        "https://169.254.169.254/latest/meta-data/", "https://metadata.google.internal/", "https://localhost/",
        f"http://{there}/a.mp4", f"https://user:password@{there}/a.mp4", f"https://{there}@127.0.0.2/a.mp4",
        f"https://127.0.0.2#@{there}/", f"https://127.0.0.2\\@{there}/", f"https://{there}.evil.test/",
        f"HTTPS://{HOST}/a.mp4", f"https://{HOST}:{outside.port + 1}/", f" https://{there}/",
        f"https://{there}/\r\nx: y",
        "file:///etc/passwd", "file://localhost/etc/passwd", "ftp://example.org/a.mp4", "gopher://127.0.0.1:6379/_X",
        "dict://127.0.0.1/", "concat:/etc/passwd", "subfile,,start,0,end,9,,:/etc/passwd", "pipe:0",
        "data:video/mp4;base64," + base64.b64encode(b"#EXTM3U\n#EXTINF:9,\nhttps://127.0.0.2/a.mp4\n").decode(),
    ):  # fmt: skip
        refused(asked_about(served, url), 400)
        refused(served.http.post("/v1/narrations", json={"media": url}), 400)
    refused(asked_about(served, "https://127.0.0.1/a.png", "image_url"), 400)
    assert inside.asked == [] and outside.asked == []


def test_what_an_allowed_host_may_do(served, inside_and_outside, leads_to):
    inside, outside, _ = inside_and_outside
    there = f"https://{HOST}:{outside.port}"
    assert asked_about(served, f"{there}/a.mp4").json()["coverage"][0]["name"] == "a.mp4"
    assert "leads on" in refused(asked_about(served, f"{there}/redirect/302"), 400)
    assert "10.0 MB" in refused(asked_about(served, f"{there}/huge"), 413)
    assert "10.0 MB" in refused(asked_about(served, f"{there}/endless"), 413)
    assert "text" in refused(asked_about(served, f"{there}/page"), 400)
    assert "does not give" in refused(asked_about(served, f"{there}/none", stream=True), 400)
    before = len(outside.asked)
    for found in (["127.0.0.2"], ["::1"], ["127.0.0.1", "127.0.0.2"], ["::ffff:127.0.0.1"]):
        leads_to[:] = [found]
        assert "not public" in refused(asked_about(served, f"{there}/a.mp4"), 400)
    assert len(outside.asked) == before
    leads_to[:] = [["127.0.0.1"], ["127.0.0.2"]]  # rebinding: another answer to the second question
    assert asked_about(served, f"{there}/a.mp4").status_code == 200
    assert "not public" in refused(asked_about(served, f"{there}/a.mp4"), 400)
    assert inside.asked == []


# -- paths


def test_paths_that_lead_out(served):
    for path in (
        "/v1/media/../../../etc/passwd", "/v1/media/..%2f..%2fetc%2fpasswd", "/v1/media/%2e%2e/%2e%2e/etc/passwd",
        "/v1/media/..%252f..%252fetc", "/v1/media/..\\..\\etc", "/v1/media/%00", "/v1/media//etc/passwd",
        "//etc/passwd",
        "/v1/models/..%2f..%2fetc", "/v1/models/%2fetc%2fpasswd", "/static/../../etc/passwd", "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd", "/v1/media/..;/x", "/%c0%ae%c0%ae/etc/passwd", "/v1/media/%ff%fe",
        "http://127.0.0.1/etc/passwd", "/docs", "/redoc", "/.env", "/.git/config",
    ):  # fmt: skip
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        status, body = raw(served, request.encode())
        assert status in (404, 405) and json.loads(body)["error"]["message"], (path, status, body)
        assert "root:" not in body
    for media in (
        "media:../../../etc/passwd",
        "media:/etc/passwd",
        "media:..%2f..%2fetc%2fpasswd",
        "media:" + "a" * 500,
    ):
        refused(asked_about(served, media), 400)
        refused(served.http.post("/v1/moments", json={"query": "x", "media": [media]}), 400, 404)


def test_names_are_only_shown(served, clip, tmp_path):
    for name in (
        "../../../etc/passwd",
        "/etc/cron.d/x",
        "..\\..\\boot.ini",
        "a\x00b.mp4",
        "\r\nset-cookie: x",
        "\u202egnp.exe",
    ):
        put = served.http.post("/v1/media", params={"name": name}, content=clip.read_bytes())
        assert put.status_code == 201
        shown_name = put.json()["name"]
        assert "/" not in shown_name and "\\" not in shown_name and shown_name.isprintable()
        lies = [path for path in served.store.folder.iterdir() if path.name == put.json()["id"]]
        assert len(lies) == 1 and lies[0].stat().st_mode & 0o077 == 0
        assert served.http.delete(f"/v1/media/{put.json()['id']}").status_code == 200
    assert served.http.post("/v1/media", params={"name": "x" * 2000}, content=b"x").status_code == 400


# -- bombs


@pytest.mark.parametrize("name", sorted(set(BAD_FILES) - {"missing", "folder", "pipe", "empty"}))
def test_bad_media(served, tmp_path, name):
    body = BAD_FILES[name][0](tmp_path).read_bytes()
    refused(asked_about(served, f"data:video/mp4;base64,{base64.b64encode(body).decode()}"), 400, 413)


def test_bombs(served):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(20_000_000))
    gif = (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", 65535, 65535)
        + b"\0\x08\0;"
    )
    laughs = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>'
    for body in (zipped.getvalue(), gzip.compress(bytes(20_000_000)), gif, laughs):
        url = f"data:image/png;base64,{base64.b64encode(body).decode()}"
        refused(asked_about(served, url, "image_url"), 400, 413)
    # Packed requests are not unpacked.
    packed = gzip.compress(json.dumps({"model": "small", "messages": QUESTION}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for path in ROUTES_OF_JSON:
        refused(served.http.post(path, content=packed, headers=headers), 400)


# -- JSON


def test_json_that_is_too_much(served, monkeypatch):
    kind = {"content-type": "application/json"}
    for path in ROUTES_OF_JSON:
        for body in (
            b"", b"{", b"[" * 200_000, b'{"a":' * 200_000, b'{"query": ' + b"9" * 100_000 + b"}", b"null", b"[]",
            b'"x"', b"7",
            b"\xff\xfe", '{"query": "\ud800"}'.encode("utf-8", "surrogatepass"), b'{"query": NaN}',
            b'{"media": Infinity}',
            b'{"query": "\\ud800"}', b'{"query": {"query": "x"}}', b'{"media": ["x"]}', b'{"model": "small"}',
        ):  # fmt: skip
            refused(served.http.post(path, content=body, headers=kind), 400)
        refused(raw_json(served, path, 96 * 1024**2 + 1), 413)
    for messages in (
        [*QUESTION * 513], [{"role": "user", "content": [{"type": "text", "text": "x"}] * 65}],
        [{"role": "user", "content": "x" * 200_001}], [{"role": "user", "content": [{"type": "video_url"}]}],
        [{"role": "user", "content": [{"type": "exec", "exec": "x"}]}], [{"role": "user"}], [None], [[]], "x",
        {"0": "x"},
        [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "media:AAAAAAAA"}}] * 17}],
    ):  # fmt: skip
        refused(served.http.post("/v1/chat/completions", json={"model": "small", "messages": messages}), 400)
    monkeypatch.setattr(incoming, "JSON_BYTES_AT_ONCE", 1000)
    body = {"model": "small", "messages": [{"role": "user", "content": "x" * 1000}]}
    assert "limit of 1,000" in refused(served.http.post("/v1/chat/completions", json=body), 429)


def raw_json(served, path, length):
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    )
    status, body = raw(served, f"{head}Content-Length: {length}\r\n\r\n".encode())
    return Raw(status, body)


class Raw:
    def __init__(self, status_code, text):
        self.status_code, self.text = status_code, text

    def json(self):
        return json.loads(self.text)


def test_ceilings_are_the_services(served):
    body = {"model": "small", "messages": QUESTION, "max_tokens": 999_999, "seed": 1, "temperature": 2, "stream": True}
    with served.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_lines()).startswith("data: ")
    for change in (
        {"max_tokens": 10**7},
        {"max_tokens": -1},
        {"temperature": 3},
        {"top_p": 0},
        {"n": 50},
        {"seed": -1},
    ):
        refused(served.http.post("/v1/chat/completions", json={**body, "stream": False, **change}), 400)


def test_wrong_content_types(served):
    text = json.dumps({"model": "small", "messages": QUESTION, "query": "x", "media": "media:AAAAAAAA"})
    for path in ROUTES_OF_JSON:
        for kind in (
            "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/html", "",
            "application/xml", "application/jsonp", "text/plain; application/json", "application/json+x",
        ):  # fmt: skip
            assert "JSON" in refused(served.http.post(path, content=text, headers={"content-type": kind}), 400)


# -- headers


GET = b"GET /v1/models HTTP/1.1\r\n"
KEYED = f"Authorization: Bearer {KEY}\r\n".encode()
HERE = b"Host: 127.0.0.1\r\n"


TRICKS = (
    (GET + KEYED + b"\r\n", (400, 421)),
    (GET + HERE + HERE + KEYED + b"\r\n", (400, 421)),
    (GET + b"Host: evil.test\r\n" + KEYED + b"\r\n", (421,)),
    (GET + b"Host: evil.test\r\nX-Forwarded-Host: 127.0.0.1\r\n" + KEYED + b"\r\n", (421,)),
    (GET + b"Host: 127.0.0.1@evil.test\r\n" + KEYED + b"\r\n", (400, 421)),
    (GET + b"Host: 127.0.0.1.\r\n" + KEYED + b"\r\n", (421,)),
    (GET + b"Host: [::1\r\n" + KEYED + b"\r\n", (400, 421)),
    (GET + HERE + b"Origin: http://[\r\n" + KEYED + b"\r\n", (403,)),
    (GET + HERE + b"Origin: http://127.0.0.1.evil.test\r\n" + KEYED + b"\r\n", (403,)),
    (GET + HERE + b"X-Forwarded-For: 127.0.0.1\r\nX-Original-URL: /healthz\r\n\r\n", (401,)),
    (GET + HERE + KEYED + KEYED + b"\r\n", (401,)),
    (GET + HERE + b"Authorization: Bearer \r\n\r\n", (401,)),
    (GET + HERE + b"Authorization: Bearer " + KEY[:-1].encode() + b"\r\n\r\n", (401,)),
    (GET + HERE + b"Authorization: Bearer \xff\xfe\r\n\r\n", (401,)),
    (GET + HERE + b"Cookie: key=" + KEY.encode() + b"\r\n\r\n", (401,)),
    (b"GET /v1/models?api_key=x HTTP/1.1\r\n" + HERE + b"\r\n", (401,)),
    (b"GET /healthz/../v1/models HTTP/1.1\r\n" + HERE + b"\r\n", (401,)),
    (b"GET /healthz%2f..%2fv1/models HTTP/1.1\r\n" + HERE + b"\r\n", (401,)),
    (b"GET //healthz HTTP/1.1\r\n" + HERE + b"\r\n", (401,)),
    (b"OPTIONS /v1/models HTTP/1.1\r\n" + HERE + b"\r\n", (401,)),
    (b"TRACE / HTTP/1.1\r\n" + HERE + KEYED + b"\r\n", (404, 405)),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"\r\n", (411,)),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Content-Length: -1\r\n\r\n", (400, 411)),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Content-Length: 1e3\r\n\r\n", (400, 411)),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", (400, 411)),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n", (400, 411)),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (411,)),
    (
        b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED
        + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
        (400, 411),
    ),
    (b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Transfer-Encoding: xchunked\r\n\r\n", (400, 411, 501)),
    (GET + HERE + KEYED + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n", (400, 431)),
    (b"GET /v1/models?" + b"x" * 33_000 + b" HTTP/1.1\r\n" + HERE + KEYED + b"\r\n", (400, 431)),
    (GET + HERE + KEYED + b"X-Null: a\0b\r\n\r\n", (400,)),
    (GET + HERE + KEYED + b"X-Folded: a\r\n b\r\n\r\n", (200, 400)),
    (GET + HERE + KEYED + b" Host: evil.test\r\n\r\n", (400, 401, 421)),
    (b"GET /v1/models\r\n\r\n", (400,)),
    (b"GET /v1/models HTTP/1.0\r\n\r\n", (421,)),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 421)),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400,)),
    (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", (400, 421, 431)),
    (GET + HERE + KEYED + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", (200, 403)),
)  # fmt: skip


def test_header_tricks(served):
    for request, statuses in TRICKS:
        status, body = raw(served, request)
        assert status in statuses, (request[:200], status, body)
        assert "Traceback" not in body and body.strip().count("\n") == 0


# -- slowness


def test_heads_and_bodies_that_trickle_in_are_cut_off(served, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(access, "SLOW_SECONDS", 0.3)
    port = served.server.servers[0].sockets[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as silent, socket.create_connection(("127.0.0.1", port)) as slow:
        for sock in (silent, slow):
            sock.settimeout(20)
        slow.sendall(GET)
        assert slow.recv(1) == b"" and silent.recv(1) == b""
    monkeypatch.setattr(access, "SLOWEST_BYTES_A_SECOND", 10**9)
    with socket.create_connection(("127.0.0.1", port)) as trickling:
        trickling.settimeout(0.1)
        trickling.sendall(b"POST /v1/media HTTP/1.1\r\n" + HERE + KEYED + b"Content-Length: 100000\r\n\r\n")
        answer = b""
        for _ in range(300):  # each piece comes in time, the whole does not
            trickling.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = trickling.recv(65536)
                break
        trickling.settimeout(20)
        while (more := trickling.recv(65536)) != b"":
            answer += more
        assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive in time" in answer


def test_answers_that_nobody_reads_are_broken_off(monkeypatch):
    monkeypatch.setattr(access, "UNREAD_SECONDS", 0.05)
    ended = []

    async def app(scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        finally:
            ended.append(True)

    async def never_taken(message):
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    door = Door(app, Rules(None, frozenset(), lambda method, path: 0))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"x")]}
    asyncio.run(door(scope, None, never_taken))
    assert ended == [True]


def test_only_so_many_requests_at_once():
    async def many():
        go_on, statuses = asyncio.Event(), []

        async def app(scope, receive, send):
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def sent(message):
            if message["type"] == "http.response.start":
                statuses.append((message["status"], dict(message["headers"]).get(b"retry-after")))

        door = Door(app, Rules(None, frozenset(), lambda method, path: 0, at_once=2))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"x")]}
        first = [asyncio.create_task(door(dict(scope), None, sent)) for _ in range(2)]
        await asyncio.sleep(0)
        await door(dict(scope), None, sent)
        assert statuses == [(429, b"1")]
        go_on.set()
        await asyncio.gather(*first)
        await door(dict(scope), None, sent)
        return [status for status, _ in statuses], door.answers

    statuses, answers = asyncio.run(many())
    assert statuses == [429, 200, 200, 200] and answers == {200: 3, 429: 1}


# -- each other


def test_keys_do_not_see_each_other(served, clip):
    theirs = {"authorization": f"Bearer {OTHER_KEY}"}
    mine = served.http.post("/v1/media", content=clip.read_bytes()).json()["id"]
    assert [one["id"] for one in served.http.get("/v1/media").json()["data"]] == [mine]
    assert served.http.get("/v1/media", headers=theirs).json()["data"] == []
    for method in ("GET", "DELETE"):
        assert "no such media" in refused(served.http.request(method, f"/v1/media/{mine}", headers=theirs), 404)
    body = {"model": "small", "messages": [shown(clip, "whose?")], "max_tokens": 5}
    body["messages"][0]["content"][0]["video_url"]["url"] = f"media:{mine}"
    refused(served.http.post("/v1/chat/completions", json=body, headers=theirs), 404)
    # What one has said is not found again by another who says the same.
    body["messages"] = [shown(clip, "whose?")]
    said = served.http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    body["messages"] += [{"role": "assistant", "content": said["content"]}, {"role": "user", "content": "then?"}]
    cached = [
        served.http.post("/v1/chat/completions", json=body, headers=headers).json()["usage"]["prompt_tokens_details"]
        for headers in (theirs, BY_KEY)
    ]
    assert cached[0]["cached_tokens"] == 0 < cached[1]["cached_tokens"]
    assert served.http.delete(f"/v1/media/{mine}").status_code == 200


def test_leaving_over_and_over_uses_nothing_up(served):
    """Every client that asks once and goes leaves a conversation: they make room for others."""
    one = Served(conversations=3)
    try:
        for number in range(6):
            messages = [{"role": "user", "content": f"number {number}"}]
            assert one.client.chat.completions.create(model="small", messages=messages, max_tokens=1).usage
        assert len(one.worker.conversations) <= 3
        for _ in range(4):
            assert asked_about(one, "data:video/mp4;base64,bm8gdmlkZW8=").status_code == 400
        until(lambda: len(one.worker.conversations) <= 3)
        assert one.client.chat.completions.create(model="small", messages=QUESTION, max_tokens=1).usage
    finally:
        one.close()
