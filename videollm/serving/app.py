"""The HTTP service: OpenAI's chat completions with videos, uploads, health and metrics, over one worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import fastapi
from starlette.responses import JSONResponse, PlainTextResponse, Response

from videollm.errors import VideoLLMError
from videollm.serving.access import Door, Rules, error_body
from videollm.serving.chat_routes import Completions
from videollm.serving.errors_to_status import status_of
from videollm.serving.model_worker import ModelWorker
from videollm.serving.uploads import Upload, UploadStore

log = logging.getLogger(__name__)

OWNER = "api"
CHAT_BYTES = 96 * 1024**2
"""Of one request with files inside; larger files are uploaded."""
JANITOR_SECONDS = 30.0


def service(worker: ModelWorker, store: UploadStore, hosts: frozenset[str] | None, key: str | None) -> Any:
    """The service as an ASGI application, behind its door."""
    return Door(routes(worker, store), rules_for(store, hosts, key))


def rules_for(store: UploadStore, hosts: frozenset[str] | None, key: str | None) -> Rules:
    """The door of the service."""

    def body_bytes(method: str, path: str) -> int:
        return store.limits.file_bytes if path == "/v1/media" else CHAT_BYTES

    return Rules(hosts, key, body_bytes)


def routes(worker: ModelWorker, store: UploadStore) -> fastapi.FastAPI:
    """All routes."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(JANITOR_SECONDS)
                for conversation_id in list(worker.conversations):
                    store.keep(conversation_id)
                store.sweep()

        janitor = asyncio.create_task(tidy())
        yield
        janitor.cancel()

    # The pages of documentation would load their scripts from other hosts; the schema itself is served.
    app = fastapi.FastAPI(title="videollm", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_exception_handler(VideoLLMError, _answered)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(404, _unknown)
    app.add_exception_handler(405, _unknown)
    app.add_exception_handler(fastapi.exceptions.RequestValidationError, _unfit)
    app.include_router(Completions(worker, store, OWNER).router())

    @app.get("/healthz", tags=["service"], response_model=None)
    async def healthz() -> Response:
        """Whether questions are answered: 200, or 503 and what is missing."""
        ready = worker.alive and worker.runtime is not None
        state = worker.state if worker.alive else "ended"
        return JSONResponse({"status": "ready" if ready else state}, 200 if ready else 503)

    @app.get("/metrics", tags=["service"], response_model=None)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return PlainTextResponse(metrics_of(worker, store), media_type="text/plain; version=0.0.4")

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
        return {"id": runtime.choice.name, "object": "model", "created": 0, "owned_by": "videollm"}

    @app.post(
        "/v1/media", tags=["media"], status_code=201,
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    )  # fmt: skip
    async def upload(request: fastapi.Request, name: str = fastapi.Query("upload", max_length=1000)) -> dict[str, Any]:
        """Takes a file, as the body of the request, and answers its id: a message may then name it ``media:ID``."""
        length = int(request.headers["content-length"])  # the door has asked for it
        return _told(await store.receive(request.stream(), OWNER, name, length))

    @app.get("/v1/media", tags=["media"])
    async def uploads() -> dict[str, Any]:
        """All files that were uploaded and are still here."""
        return {"object": "list", "data": [_told(upload) for upload in store.of(OWNER)]}

    @app.get("/v1/media/{media_id}", tags=["media"])
    async def uploaded(media_id: str) -> dict[str, Any]:
        """What is known of a file; never the file."""
        return _told(store.get(media_id, OWNER))

    @app.delete("/v1/media/{media_id}", tags=["media"])
    async def delete(media_id: str) -> dict[str, Any]:
        """Deletes a file; conversations that it was shown in keep it."""
        store.delete(media_id, OWNER)
        return {"id": media_id, "object": "media", "deleted": True}

    return app


def _told(upload: Upload) -> dict[str, Any]:
    return {"id": upload.id, "object": "media", "name": upload.name, "bytes": upload.size_bytes}


def metrics_of(worker: ModelWorker, store: UploadStore) -> str:
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
    metric("waiting", "gauge", "Questions that wait.", value=worker.queue_length)
    metric("answering", "gauge", "Questions that are being answered.", value=worker.answering)
    metric("conversations", "gauge", "Open conversations.", value=len(worker.conversations))
    metric("conversation_bytes", "gauge", "Memory of their clips, features and caches.", value=worker.memory_bytes)
    metric("upload_bytes", "gauge", "Files kept on disk.", value=store.held_bytes)
    firsts = sorted(counts.first_word_seconds)
    if firsts:
        quantiles = {f"quantile_{q}": firsts[min(len(firsts) - 1, int(q * len(firsts)))] for q in (0.5, 0.9, 0.99)}
        metric(
            "first_word_seconds",
            "gauge",
            "From the start of an answer to its first word, of the last 1000.",
            **quantiles,
        )
    return "\n".join(lines) + "\n"


async def _answered(_: Any, error: Exception) -> Response:
    assert isinstance(error, VideoLLMError)
    status = status_of(error)
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    return JSONResponse(error_body(status, str(error)), status, headers)


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
