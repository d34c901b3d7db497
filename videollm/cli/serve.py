"""`videollm serve`: OpenAI's chat completions with videos, on this machine only unless an API key is given."""

from __future__ import annotations

import argparse
import importlib.util
import os

from videollm.errors import MissingDependencyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME|DIR", help="default: the embedded tiny")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the language model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need a key"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument("--api-key", metavar="KEY", help="asked of every request (or VIDEOLLM_API_KEY)")


def run(args: argparse.Namespace) -> int:
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"the service needs {package}; pip install 'videollm[serve]'")
    from videollm.cli.chat import quiet

    quiet()
    from videollm.serving.access import hosts_for
    from videollm.serving.listening import GRACE_SECONDS, address_of, bound, listen

    key = args.api_key or os.environ.get("VIDEOLLM_API_KEY") or None
    hosts = hosts_for(args.host, key)
    sock = bound(args.host, args.port)
    from videollm.models import hub

    hub.find(args.model)
    from videollm.serving.app import service
    from videollm.serving.model_worker import ModelChoice, ModelWorker
    from videollm.serving.uploads import UploadStore

    worker, store = ModelWorker(ModelChoice(args.model, args.bits, args.device)).start(), UploadStore()

    def ended() -> None:
        worker.close(GRACE_SECONDS)
        store.close()

    print(f"videollm: {address_of(sock, args.host)}/v1 answers as OpenAI's API does  (Ctrl-C ends it)", flush=True)
    listen(service(worker, store, hosts, key), sock, ended)
    return 0
