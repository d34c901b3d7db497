"""The service on several machines: engines are replicas of a Ray Serve deployment, behind one app that answers HTTP.

    ray start --head              # with VIDEOLLM_API_KEY in the environment; on others: ray start --address=...
    serve deploy demo/ray_serve.yaml

The app is one replica: it holds the files and words of all conversations. Each of these lives at one engine, so that
its keys and values are there when it goes on (`videollm.serving.several_workers`). Serve starts engines, places them
where processors or GPUs are free, and starts them again when they or their machine die; their conversations meanwhile
go on elsewhere. An engine is asked over a connection of its own, which is open for as long as it works: a long request
to a replica that takes one at a time, so that Serve itself hands out only engines that nobody has.

What an engine gets are clips that the app has decoded. Only tools (narrate, look, listen, search, chapters) open files
anew: for them, on several machines, `Settings.uploads` must be a folder that all of them see.
"""

# No postponed annotations: Serve reads that of `build` as it is.
import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from videollm.errors import MissingDependencyError, UnavailableError
from videollm.serving.access import hosts_for
from videollm.serving.engine import Engine, ModelChoice, WorkerLimits, load_choice
from videollm.serving.model_worker import ModelWorker
from videollm.serving.several_workers import SeveralWorkers
from videollm.tools.child_process import LEAVE_SECONDS

try:
    from ray import serve, util
except ImportError:
    raise MissingDependencyError("several machines need Ray Serve; pip install 'videollm[serve,ray]'") from None

CONNECT_SECONDS = 120.0
"""How long an engine is waited for, and how long it waits to be connected to."""
SILENCE_SECONDS = 15.0
"""A connection on which a machine does not answer for about so long is closed: it lost its power, or its network."""
ANY_ADDRESS = "0.0.0.0"


class Settings(BaseModel):
    """What a configuration may say (``args``)."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="tiny", description="a name, or a folder that is on every machine")
    bits: int | None = None
    device: str | None = None
    workers: int = Field(default=2, ge=1, le=256, description="engines")
    cpus: float = Field(default=1.0, ge=0, description="that an engine takes of its machine")
    gpus: float = Field(default=0.0, ge=0)
    at_once: int = Field(default=16, ge=1, description="questions that an engine answers together")
    waiting: int = Field(default=32, ge=1, description="questions that wait for an engine")
    allow_hosts: list[str] = Field(default_factory=list, description="of which files are fetched, by https")
    encoder: str | None = Field(default=None, description="a dual encoder: a name, or a folder on every machine")
    index: str | None = Field(default=None, description="what everybody may search: on the machine of the app")
    uploads: str | None = Field(default=None, description="a private folder that all machines see; None: of this one")


def keys_of_environment() -> frozenset[str]:
    """The API keys. Raises ConfigError: there is none, or one that could be guessed."""
    keys = [key.strip() for key in os.environ.get("VIDEOLLM_API_KEY", "").split(",") if key.strip()]
    hosts_for(ANY_ADDRESS, *keys)  # wherever Serve listens: one is always asked for
    return frozenset(keys)


@serve.deployment(max_ongoing_requests=1, health_check_timeout_s=120)
class EngineReplica:
    """A place where an engine can work."""

    async def work(self, limits: WorkerLimits) -> AsyncIterator[tuple[tuple[str, int], bytes]]:
        """Tells where and with which secret to connect, and is at work until that connection ends."""
        secret = secrets.token_bytes(32)
        # Only its own machine's address, only this one connection, only with the secret: what comes is unpickled.
        with Listener((util.get_node_ip_address(), 0), authkey=secret) as listener:
            _accepts_for(listener, CONNECT_SECONDS)
            yield listener.address, secret  # pyright: ignore[reportReturnType]
            connection = await asyncio.to_thread(listener.accept)
        ended = threading.Event()

        def left() -> None:
            """Serve starts a replica that is stuck anew."""
            if not ended.wait(LEAVE_SECONDS):
                os._exit(1)

        try:
            await asyncio.to_thread(Engine(_watched(connection), load_choice, limits, left).work)
        finally:
            ended.set()


class RemoteEngine:
    """An engine in a replica, as a worker holds it: a `videollm.serving.engine_process.RunningEngine`.

    Args:
        engines: the handle of the deployment.

    Raises:
        OSError: none is free, or it cannot be reached.
    """

    pid = None

    def __init__(self, engines: Any, limits: WorkerLimits) -> None:
        self._request = engines.options(stream=True).work.remote(limits)
        try:
            address, secret = _first(self._request)
            self.connection: Connection = _watched(Client(address, authkey=secret))
        except Exception as error:
            self._request.cancel()
            raise OSError(f"no engine could be had: {error}") from error

    def kill(self) -> None:
        """The replica ends itself when its engine does not, once nobody listens."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def end(self) -> str:
        self.kill()
        self.connection.close()
        return "ended, or could not be reached any more"


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
@serve.ingress()
class Service:
    """The app: what `videollm serve` serves, with engines elsewhere."""

    def __init__(self, engines: Any, settings: Settings) -> None:
        from videollm.moments.store import MomentStore
        from videollm.serving.fetching import Fetcher
        from videollm.serving.uploads import UploadStore

        self.keys = keys_of_environment()
        self.moments = None if settings.index is None else MomentStore.open(settings.index)
        self.fetcher = Fetcher(settings.allow_hosts)
        self.store = UploadStore(within=None if settings.uploads is None else Path(settings.uploads))
        choice = ModelChoice(settings.model, settings.bits, settings.device, settings.encoder)
        limits = WorkerLimits(at_once=settings.at_once, waiting=settings.waiting)

        def worker() -> ModelWorker:
            return ModelWorker(choice, limits, engine=lambda limits: RemoteEngine(engines, limits))

        self.workers = SeveralWorkers([worker() for _ in range(settings.workers)]).start()

    def __serve_build_asgi_app__(self) -> Any:
        from videollm.serving.app import service

        return service(self.workers, self.store, None, self.keys, fetcher=self.fetcher, moments=self.moments)

    def __del__(self) -> None:
        if hasattr(self, "workers"):
            self.workers.close()
            self.store.close()


def build(settings: Settings) -> Any:
    """The application of a configuration, for ``import_path``.

    Raises:
        ConfigError: there is no API key.
    """
    keys_of_environment()
    place = {"num_cpus": settings.cpus, "num_gpus": settings.gpus}
    engines = EngineReplica.options(num_replicas=settings.workers, ray_actor_options=place).bind()
    return Service.bind(engines, settings)


def _first(request: Any) -> Any:
    """What a replica tells first, within `CONNECT_SECONDS`."""
    told: list[Any] = []

    def read() -> None:
        try:
            told.append(next(request))
        except BaseException as error:
            told.append(error)

    reading = threading.Thread(target=read, name="engine-request", daemon=True)
    reading.start()
    reading.join(CONNECT_SECONDS)
    if not told:
        raise UnavailableError(f"no engine was free for {CONNECT_SECONDS:.0f} s")
    if isinstance(told[0], BaseException):
        raise told[0]
    return told[0]


def _accepts_for(listener: Listener, seconds: float) -> None:
    listener._listener._socket.settimeout(seconds)  # type: ignore[attr-defined]  # it has no setting for it


def _watched(connection: Connection) -> Connection:
    """With probes of the system, so that the silent end of a machine is an end."""
    with socket.socket(fileno=os.dup(connection.fileno())) as sock:
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in (("TCP_KEEPIDLE", SILENCE_SECONDS // 3), ("TCP_KEEPINTVL", SILENCE_SECONDS // 3)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), int(value))
        if hasattr(socket, "TCP_KEEPCNT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    return connection
