"""Fetching from addresses: only what is allowed, only from where it was looked for, only as much as may be."""

import asyncio
import socket

import pytest

pytest.importorskip("trustme", reason="pip install trustme to make certificates")

from tests.serving.https_server import HOST, HttpsServer, new_authority, trusting
from videollm.errors import BusyError, ConfigError, MediaLimitError, NotYoursError, RequestError
from videollm.serving.fetching import Fetcher, FetchLimits, is_public
from videollm.serving.uploads import StoreLimits, UploadStore

FILE = b"the file" * 1000


@pytest.fixture(scope="module")
def authority():
    return new_authority()


@pytest.fixture(scope="module")
def server(authority):
    one = HttpsServer(authority, {"/a.mp4": FILE, "/f%C3%BCr%20dich.mp4": FILE, "/": FILE})
    yield one
    one.close()


@pytest.fixture(scope="module")
def inside(authority, server):
    """What must not be reached, on the same port of another address."""
    one = HttpsServer(authority, {"/a.mp4": b"secret", "/secret": b"secret"}, "127.0.0.2", port=server.port)
    yield one
    one.close()


@pytest.fixture
def store():
    one = UploadStore(StoreLimits(file_bytes=1_000_000))
    yield one
    assert one.of("me") == [] and not list(one.folder.iterdir()), "a file that was refused is kept"
    one.close()


def fetcher(server, authority, *answers, **limits):
    """A fetcher for the server's host, whose name is resolved to these addresses, one list a question."""
    answers = list(answers) or [["127.0.0.1"]]

    async def resolve(host, port):
        assert (host, port) == (HOST, server.port)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    asked = []
    one = Fetcher(
        [f"{HOST}:{server.port}"], FetchLimits(**limits), resolve=resolve, public=lambda a: a == "127.0.0.1",
        tls=trusting(authority),
    )  # fmt: skip
    return one, asked


def fetched(one, server, store, path="/a.mp4"):
    return asyncio.run(one.fetch(f"https://{HOST}:{server.port}{path}", store, "me"))


def test_a_file_comes_into_the_store_by_the_address_that_was_found_once(server, authority, store):
    one, asked = fetcher(server, authority)
    for path, name in (("/a.mp4", "a.mp4"), ("/f%C3%BCr%20dich.mp4?x=/y.png", "für dich.mp4"), ("", "video")):
        upload = fetched(one, server, store, path)
        assert upload.path.read_bytes() == FILE and (upload.name, upload.size_bytes) == (name, len(FILE))
        assert upload.owner == "me"
        with pytest.raises(NotYoursError):
            store.get(upload.id, "you")
        store.delete(upload.id, "me")
    assert asked == [HOST] * 3, "the name is asked for once a file"
    assert server.asked[-1] == ("/", f"{HOST}:{server.port}")
    assert one.fetched == {"done": 3, "failed": 0}


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.1.2.3", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "203.0.113.9", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:7f00:1", "64:ff9b::7f00:1",
        "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::",
        "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1",
        "2606:4700::1111%lo", "", "localhost", "0x7f.1", "2130706433", "127.1",
    ],
)  # fmt: skip
def test_addresses_inside(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"])
def test_addresses_outside(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://{}/a.mp4", "ftp://{}/a.mp4", "file:///etc/passwd", "gopher://{}/", "//{}/a.mp4", "/etc/passwd", "",
        "https:{}/a.mp4", "https:///{}/a.mp4", "https://", "https://:443/",
        "https://user:password@{}/", "https://user@{}/", "https://@{}/", "https://{}@127.0.0.2/", "https://{}:x@[::1]/",
        "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/",
        "https://017700000001/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25lo]/",
        "https://[::1", "https://localhost/", "https://169.254.169.254/latest/meta-data/",
        "https://evil.{}/", "https://{}.evil.test/", "https://media.test/", "https://media.test.:1/", "https://MEDİA.test/",
        "https://media%2etest/", "https://media。test/", "https://{}\\@evil.test/", "https://evil.test\\{}/",
        "https://{}/a b", "https://{}/a\r\nX: y", "https://{}/a\tb", " https://{}/", "https://{}/\x00", "https://{}/ü",
        "https://media.test:99999/", "https://media.test:port/", "https://media.test:-1/", "https://{}/" + "a" * 5000,
    ],
)  # fmt: skip
def test_addresses_that_are_not_even_looked_for(server, authority, store, url):
    one, asked = fetcher(server, authority)
    with pytest.raises(RequestError) as caught:
        asyncio.run(one.fetch(url.replace("{}", f"{HOST}:{server.port}"), store, "me"))
    assert (
        asked == []
        and "\n" not in str(caught.value)
        and "password" not in str(caught.value).replace("a name or a password", "")
    )


def test_without_a_list_nothing_is_fetched(store):
    with pytest.raises(RequestError, match="not fetched here; send the file itself"):
        asyncio.run(Fetcher([]).fetch("https://example.org/a.mp4", store, "me"))


@pytest.mark.parametrize(
    "host",
    ["", "*", "*.example.org", "127.0.0.1", "1.2.3.4:443", "[::1]", "localhost", "https://example.org", "example.org/",
     "a b.org", "exämple.org", "example.org:0", "example.org:x", "-a.org", "0x7f.1", "a..org", "user@example.org"],
)  # fmt: skip
def test_hosts_that_cannot_be_allowed(host):
    with pytest.raises(ConfigError, match="is no host to allow"):
        Fetcher([host])


def test_hosts_that_can_be_allowed():
    assert Fetcher(["Example.ORG", "a.example.org:8443"]).hosts == {("example.org", 443), ("a.example.org", 8443)}


@pytest.mark.parametrize(
    "found",
    [["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1", "::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
)
def test_a_name_that_leads_inside(server, inside, authority, store, found):
    before = len(server.asked)
    one, _ = fetcher(server, authority, found)
    with pytest.raises(RequestError, match="an address that is not public"):
        fetched(one, server, store)
    assert len(server.asked) == before and inside.asked == []


def test_a_name_that_leads_elsewhere_the_second_time(server, inside, authority, store):
    one, asked = fetcher(server, authority, ["127.0.0.1"], ["127.0.0.2"])
    upload = fetched(one, server, store)
    assert upload.path.read_bytes() == FILE and asked == [HOST] and inside.asked == []
    store.delete(upload.id, "me")
    with pytest.raises(RequestError, match="not public"):
        fetched(one, server, store)
    assert inside.asked == []


def test_a_name_without_an_address(server, authority, store):
    for found in ([], socket.gaierror(-2, "unknown")):
        one, _ = fetcher(server, authority, found)
        with pytest.raises(RequestError, match="has no address"):
            fetched(one, server, store)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server, inside, authority, store, status):
    one, _ = fetcher(server, authority)
    with pytest.raises(RequestError, match=f"leads on to another address .{status}."):
        fetched(one, server, store, f"/redirect/{status}")
    assert inside.asked == []


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/none", RequestError, "does not give the file .404."),
        ("/huge", MediaLimitError, "the limit is 1.0 MB"),
        ("/endless", MediaLimitError, "the limit is 1.0 MB"),
        ("/short", RequestError, "broke off"),
        ("/packed", RequestError, "packed"),
        ("/stalls", RequestError, "too slow"),
        ("/trickles", RequestError, "too slow"),
    ],
)
def test_what_is_no_whole_file_is_not_kept(server, authority, store, path, kind, words):
    one, _ = fetcher(server, authority, seconds=0.6, idle_seconds=0.3)
    with pytest.raises(kind, match=words) as caught:
        fetched(one, server, store, path)
    assert "\n" not in str(caught.value)
    assert one.fetched == {"done": 0, "failed": 1}


def test_a_certificate_for_another_name_or_of_nobody(server, authority, store):
    other = HttpsServer(authority, {"/a.mp4": b"x"}, certified="other.test")
    stranger = HttpsServer(new_authority(), {"/a.mp4": b"x"})
    for one_server in (other, stranger):
        one, _ = fetcher(one_server, authority)
        with pytest.raises(RequestError, match="certificate that is trusted"):
            fetched(one, one_server, store)
        assert one_server.asked == []
        one_server.close()
        with pytest.raises(RequestError, match="does not answer"):
            fetched(one, one_server, store)


def test_only_some_at_once(server, authority, store):
    one, _ = fetcher(server, authority, at_once=2, seconds=0.5, idle_seconds=0.5)

    async def many():
        address = f"https://{HOST}:{server.port}/stalls"
        return await asyncio.gather(*(one.fetch(address, store, "me") for _ in range(3)), return_exceptions=True)

    kinds = sorted(type(outcome).__name__ for outcome in asyncio.run(many()))
    assert kinds == [BusyError.__name__, RequestError.__name__, RequestError.__name__]
