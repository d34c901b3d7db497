"""The HTTP service: OpenAI's chat completions with videos, narrations, moments, uploads, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import fastapi
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from videollm.errors import VideoLLMError
from videollm.moments.store import MomentStore
from videollm.serving.access import Door, Rules, asker, error_body
from videollm.serving.chat_routes import Completions
from videollm.serving.errors_to_status import status_of
from videollm.serving.fetching import Fetcher
from videollm.serving.incoming import Incoming
from videollm.serving.several_workers import Workers
from videollm.serving.tool_routes import ToolRoutes
from videollm.serving.uploads import Upload, UploadStore

log = logging.getLogger(__name__)

CHAT_BYTES = 96 * 1024**2
"""Of one request with files inside; larger files are uploaded."""
JANITOR_SECONDS = 30.0
ABOUT = """Answers about videos, images and sounds, as OpenAI's API does.

A message names a file as `data:TYPE;base64,DATA`, as `media:ID` of one that was uploaded to `/v1/media`, or by an https
address of a host that the service allows (by default none). With a key, uploads are seen by that key alone.
"""


class Problem(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: int


class Refusal(BaseModel):
    """What every error looks like."""

    error: Problem


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": about}
    for status, about in {
        400: "The request, a file or a question cannot be used",
        401: "No key, or a wrong one",
        403: "From a page of another site",
        404: "No such model, address or file, or somebody else's",
        405: "Not possible at this address",
        408: "It did not arrive in time",
        411: "It does not say how long it is",
        413: "Over a limit",
        421: "Another service was meant",
        429: "Too much at once: later",
        431: "Its head is too long",
        500: "Unexpected; it was logged",
        503: "Starting, ending, or the model cannot answer: later",
        "default": "Anything else that went wrong",
    }.items()
}


def service(
    worker: Workers,
    store: UploadStore,
    hosts: frozenset[str] | None,
    keys: frozenset[str] = frozenset(),
    *,
    fetcher: Fetcher | None = None,
    moments: MomentStore | None = None,
) -> Any:
    """The service as an ASGI application, behind its door.

    Args:
        worker: answers.
        store: keeps files.
        hosts, keys: who may come in, see `Rules`.
        fetcher: fetches files by address; None: nothing is fetched.
        moments: an index that everybody may search.
    """
    answers: Counter[int] = Counter()
    return Door(routes(worker, store, answers, fetcher, moments), rules_for(store, hosts, keys), answers)


def rules_for(store: UploadStore, hosts: frozenset[str] | None, keys: frozenset[str]) -> Rules:
    """The door of the service."""

    def body_bytes(method: str, path: str) -> int:
        return store.limits.file_bytes if path == "/v1/media" else CHAT_BYTES

    return Rules(hosts, keys, body_bytes)


def routes(
    worker: Workers,
    store: UploadStore,
    answers: Counter[int],
    fetcher: Fetcher | None = None,
    moments: MomentStore | None = None,
) -> fastapi.FastAPI:
    """All routes; ``answers`` is what the door counts."""
    incoming = Incoming(store, Fetcher(()) if fetcher is None else fetcher)
    tools = ToolRoutes(worker, incoming, moments)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(JANITOR_SECONDS)
                for conversation_id in list(worker.conversations):
                    store.keep(conversation_id)
                store.sweep()
                try:
                    await tools.libraries.tidy()
                except Exception:  # of a database; the next round must come
                    log.exception("what was told of uploads that are gone was thrown away with that of others")

        janitor = asyncio.create_task(tidy())
        yield
        janitor.cancel()
        tools.close()

    # The pages of documentation would load their scripts from other hosts; the schema itself is served.
    app = fastapi.FastAPI(
        title="videollm", version="1", description=ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan,
        responses=REFUSALS,
    )  # fmt: skip
    app.add_exception_handler(VideoLLMError, _answered)
    app.add_exception_handler(ClientDisconnect, _broken_off)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(404, _unknown)
    app.add_exception_handler(405, _unknown)
    app.add_exception_handler(fastapi.exceptions.RequestValidationError, _unfit)
    app.include_router(Completions(worker, incoming).router())
    app.include_router(tools.router())

    @app.get("/healthz", tags=["service"], response_model=None)
    async def healthz() -> Response:
        """Whether questions are answered: 200, or 503 and what is missing."""
        ready = worker.alive and worker.runtime is not None
        state = worker.state if worker.alive else "ended"
        return JSONResponse({"status": "ready" if ready else state}, 200 if ready else 503)

    @app.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        text = metrics_of(worker, store, tools, answers)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", tags=["models"])
    async def models() -> dict[str, Any]:
        """The model that answers."""
        return {"object": "list", "data": [await _model()]}

    @app.get("/v1/models/{model}", tags=["models"], response_model=None)
    async def model(model: str) -> Response:
        found = await _model()
        if model != found["id"]:
            return JSONResponse(error_body(404, "there is no such model here"), 404)
        return JSONResponse(found)

    async def _model() -> dict[str, Any]:
        runtime = await worker.ready()
        about = {"id": runtime.choice.name, "object": "model", "created": 0, "owned_by": "videollm"}
        return {**about, "hears": runtime.hears, "calls_tools": runtime.calls_tools}

    @app.post(
        "/v1/media", tags=["media"], status_code=201,
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    )  # fmt: skip
    async def upload(request: fastapi.Request, name: str = fastapi.Query("upload", max_length=1000)) -> dict[str, Any]:
        """Takes a file, as the body of the request, and answers its id: a message may then name it ``media:ID``."""
        length = int(request.headers["content-length"])  # the door has asked for it
        return _told(await store.receive(request.stream(), asker(request.scope), name, length))

    @app.get("/v1/media", tags=["media"])
    async def uploads(request: fastapi.Request) -> dict[str, Any]:
        """All files that were uploaded with this key and are still here."""
        return {"object": "list", "data": [_told(upload) for upload in store.of(asker(request.scope))]}

    @app.get("/v1/media/{media_id}", tags=["media"])
    async def uploaded(request: fastapi.Request, media_id: str) -> dict[str, Any]:
        """What is known of a file; never the file."""
        return _told(store.get(media_id, asker(request.scope)))

    @app.delete("/v1/media/{media_id}", tags=["media"])
    async def delete(request: fastapi.Request, media_id: str) -> dict[str, Any]:
        """Deletes a file; conversations that it was shown in keep it."""
        store.delete(media_id, asker(request.scope))
        return {"id": media_id, "object": "media", "deleted": True}

    return app


def _told(upload: Upload) -> dict[str, Any]:
    return {"id": upload.id, "object": "media", "name": upload.name, "bytes": upload.size_bytes}


def metrics_of(worker: Workers, store: UploadStore, tools: ToolRoutes, answers: Counter[int]) -> str:
    """All counts, in the text format of Prometheus."""
    counts = worker.counts
    lines: list[str] = []

    def metric(name: str, kind: str, about: str, **values: float) -> None:
        lines.extend((f"# HELP videollm_{name} {about}", f"# TYPE videollm_{name} {kind}"))
        for label, value in values.items():
            labels = "" if label == "value" else f'{{{label.partition("_")[0]}="{label.partition("_")[2]}"}}'
            lines.append(f"videollm_{name}{labels} {value:g}")

    metric(
        "turns_total", "counter", "Questions, by how they ended.", **{f"finish_{k}": v for k, v in counts.turns.items()}
    )
    metric("refused_total", "counter", "Questions refused because the queue was full.", value=counts.refused)
    metric("prompt_tokens_total", "counter", "Positions of prompts, media among them.", value=counts.prompt_tokens)
    metric("reused_tokens_total", "counter", "Positions of prompts that were cached.", value=counts.reused_tokens)
    metric("generated_tokens_total", "counter", "Tokens of answers.", value=counts.generated_tokens)
    metric("dropped_caches_total", "counter", "Idle conversations whose memory was taken.", value=counts.dropped_caches)
    metric("restarts_total", "counter", "How often the model's process was started again.", value=counts.restarts)
    metric("waiting", "gauge", "Questions that wait.", value=worker.queue_length)
    metric("answering", "gauge", "Questions that are being answered.", value=worker.answering)
    metric("conversations", "gauge", "Open conversations.", value=len(worker.conversations))
    metric("conversation_bytes", "gauge", "Memory of their clips, features and caches.", value=worker.memory_bytes)
    metric("upload_bytes", "gauge", "Files kept on disk.", value=store.held_bytes)
    metric("long_work", "gauge", "Videos that are being narrated or looked through.", value=tools.under_way)
    fetched = tools.incoming.fetcher.fetched
    metric("fetched_total", "counter", "Files by address.", **{f"outcome_{k}": v for k, v in fetched.items()})
    if answers:
        metric("http_total", "counter", "Answers, by status.", **{f"status_{k}": v for k, v in sorted(answers.items())})
    for name, kept, about in (
        ("first_word_seconds", counts.first_word_seconds, "From the start of an answer to its first word"),
        ("stop_seconds", counts.stop_seconds, "From the cancelling of work to its end"),
    ):
        if seconds := sorted(kept):
            quantiles = {
                f"quantile_{q}": seconds[min(len(seconds) - 1, int(q * len(seconds)))] for q in (0.5, 0.9, 0.99, 1)
            }
            metric(name, "gauge", f"{about}, of the last 1000.", **quantiles)
    return "\n".join(lines) + "\n"


async def _answered(_: Any, error: Exception) -> Response:
    assert isinstance(error, VideoLLMError)
    status = status_of(error)
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    return JSONResponse(error_body(status, str(error)), status, headers)


async def _broken_off(_: Any, error: Exception) -> Response:
    """The client is gone and sees nothing of this; or too slow, and it does."""
    return JSONResponse(error_body(408, "the request did not arrive in time"), 408, {"connection": "close"})


async def _unfit(_: Any, error: Exception) -> Response:
    assert isinstance(error, fastapi.exceptions.RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"])
    return JSONResponse(error_body(400, f"{place}: {first['msg']}"), 400)


async def _unknown(request: fastapi.Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "there is nothing at this address" if status == 404 else f"{request.method} is not possible at this address"
    return JSONResponse(error_body(status, what), status)


async def _failed(_: Any, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return JSONResponse(error_body(500, "the request failed in an unexpected way, which was logged"), 500)
