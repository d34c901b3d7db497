"""Fetches a file from an address that a client named: off unless hosts are allowed by name, and then only from these.

An address is checked before anything is asked of the network: https, a host of the list, nothing but a path behind it.
The host's name is resolved once; each of its addresses must be one of the public internet; the connection goes to such
an address, never to the name again, while the certificate must be for the name. So a name server that changes its mind
between two questions (DNS rebinding) changes nothing. What comes is streamed into the store under its limits.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore

from videollm.errors import BusyError, ConfigError, RequestError
from videollm.serving.uploads import Upload, UploadStore

HTTPS_PORT = 443
LONGEST_ADDRESS_CHARACTERS = 4096
_LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="name-lookup")

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: 127.1, 0x7f.1 and 2130706433 are numbers that resolvers read as addresses.
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")

# Source: IANA's registries of special-purpose addresses. They are written out, as what `ipaddress` calls global changes
# from release to release of Python.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is given out of IPv6; mapped, translated, unique local, link-local and multicast addresses lie outside."""
_UNICAST_NOT_PUBLIC = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))  # tunnels and examples
)


@dataclass(frozen=True)
class FetchLimits:
    """What fetching may cost; bytes are limited by the store.

    Attributes:
        seconds: from the first question to the last byte.
        idle_seconds: for a connection to be made, and for the next piece.
        at_once: fetched at the same time; one more is refused.
    """

    seconds: float = 120.0
    idle_seconds: float = 10.0
    at_once: int = 4


Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The numeric addresses of a host."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, not of this machine, its networks, or a tunnel to them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in network for network in _NOT_PUBLIC)
    return found in _UNICAST and found.scope_id is None and not any(found in network for network in _UNICAST_NOT_PUBLIC)


async def resolved(host: str, port: int) -> list[str]:
    """As the system does it. Not in the threads that others use: a name server may keep these waiting for long."""
    lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, lookup)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Fetcher:
    """Fetches from hosts of a list.

    Args:
        hosts: names, with a port where it is not 443: ``example.org``, ``media.example.org:8443``. Names below them are
            others.
        limits: what it may cost.
        resolve: gives a host's addresses.
        public: whether an address may be connected to.
        tls: whose certificates are trusted; None: those that the system trusts.

    Raises:
        ConfigError: a name that is none.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        limits: FetchLimits | None = None,
        *,
        resolve: Resolve = resolved,
        public: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.hosts = frozenset(_entry(host) for host in hosts)
        self.limits = FetchLimits() if limits is None else limits
        self.fetched: dict[str, int] = {"done": 0, "failed": 0}
        self._resolve, self._public = resolve, public
        self._tls = ssl.create_default_context() if tls is None else tls
        self._under_way = 0

    def check(self, url: str) -> tuple[str, int, str]:
        """Host, port, and path with query of an address, without asking anybody.

        Raises:
            RequestError: it is not fetched.
        """
        if not self.hosts:
            raise RequestError("addresses are not fetched here; " + INSTEAD)
        if len(url) > LONGEST_ADDRESS_CHARACTERS:
            raise RequestError(
                f"the address has {len(url):,} characters and the limit is {LONGEST_ADDRESS_CHARACTERS:,}"
            )
        if not re.fullmatch(r"[!#-;=?-\[\]_a-z~]+", url):  # no space, control, quote, backslash, brace: parsers differ
            raise RequestError("the address holds characters that belong percent-encoded")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or HTTPS_PORT
        except ValueError:
            raise RequestError("the address is none that can be read") from None
        if parts.scheme != "https":
            raise RequestError(f"{parts.scheme[:20] or 'such'} addresses are not fetched, only https; {INSTEAD}")
        if "@" in parts.netloc:
            raise RequestError("an address with a name or a password in it is not fetched")
        if (host, port) not in self.hosts:
            raise RequestError(f"nothing is fetched from that host ({parts.netloc[:100]}); {INSTEAD}")
        return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    async def fetch(self, url: str, store: UploadStore, owner: str) -> Upload:
        """Fetches a file into the store.

        Raises:
            RequestError: the address is refused, or nothing can be fetched from it.
            MediaLimitError: the file is too large.
            BusyError: too many are being fetched.
        """
        host, port, target = self.check(url)
        if self._under_way >= self.limits.at_once:
            raise BusyError(f"{self._under_way} files are being fetched, which is the limit; try again later")
        self._under_way += 1
        outcome = "failed"
        try:
            async with asyncio.timeout(self.limits.seconds):
                upload = await self._download(host, port, target, store, owner)
            outcome = "done"
            return upload
        except (TimeoutError, httpcore.TimeoutException):
            raise RequestError(
                f"{host} was too slow; a file must come in {self.limits.seconds:g} s, and its next piece in "
                f"{self.limits.idle_seconds:g} s"
            ) from None
        finally:
            self._under_way -= 1
            self.fetched[outcome] += 1

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise RequestError(f"{host} has no address that could be found")
        # One that is not public makes the others doubtful, too.
        if not all(self._public(address) for address in found):
            raise RequestError(f"{host} leads to an address that is not public; nothing is fetched from there")
        return found

    async def _download(self, host: str, port: int, target: str, store: UploadStore, owner: str) -> Upload:
        idle = self.limits.idle_seconds
        named = host if port == HTTPS_PORT else f"{host}:{port}"
        headers = [("host", named), ("accept-encoding", "identity"), ("accept", "*/*"), ("user-agent", "videollm")]
        asked: dict[str, Any] = {
            "timeout": {"connect": idle, "read": idle, "write": idle, "pool": idle},
            "sni_hostname": host,  # whom the certificate must name; the connection goes to a number
        }
        for address in await self._addresses(host, port):
            place = httpcore.URL(scheme=b"https", host=address.encode(), port=port, target=target.encode())
            # A pool of its own: nothing is shared between those who ask.
            async with httpcore.AsyncConnectionPool(ssl_context=self._tls, max_keepalive_connections=0) as pool:
                try:
                    async with pool.stream("GET", place, headers=headers, extensions=asked) as response:
                        length = _length_of(response, host)
                        return await store.receive(response.aiter_stream(), owner, _name_of(target), length)
                except httpcore.ConnectError as error:
                    if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
                        raise RequestError(f"{host} could not show a certificate that is trusted") from None
                except (httpcore.NetworkError, httpcore.ProtocolError):
                    raise RequestError(f"{host} broke off before the whole file was there; try again") from None
        raise RequestError(f"{host} does not answer")


INSTEAD = "send the file itself (data:TYPE;base64,DATA), or upload it to /v1/media and name it media:ID"


def _entry(host: str) -> tuple[str, int]:
    name, colon, port = host.strip().lower().partition(":")
    if not _HOST.fullmatch(name) or len(name) > 253 or (colon and not re.fullmatch(r"[1-9]\d{0,4}", port)):
        raise ConfigError(
            f"{host!r} is no host to allow; give a name of letters and dots such as media.example.org, with :PORT "
            "where it is not 443; numeric addresses are never fetched from"
        )
    return name, int(port) if colon else HTTPS_PORT


def _length_of(response: httpcore.Response, host: str) -> int | None:
    """How many bytes will come, if that is said; refuses what is not the file itself."""
    if 300 <= response.status < 400:
        raise RequestError(f"{host} leads on to another address ({response.status}), which is not followed")
    if response.status != 200:
        raise RequestError(f"{host} does not give the file ({response.status}); is its address right?")
    told = {name.lower(): value for name, value in response.headers}
    if told.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError(f"{host} sends the file packed, though it was asked not to")
    length = told.get(b"content-length")
    return int(length) if length is not None and length.isdigit() else None


def _name_of(target: str) -> str:
    return unquote(target.partition("?")[0].rpartition("/")[2]) or "video"
