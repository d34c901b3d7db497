"""`videollm serve`: OpenAI's chat completions with videos, on this machine only unless an API key is given."""

from __future__ import annotations

import argparse
import importlib.util
import os

from videollm.errors import ConfigError, MissingDependencyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME|DIR", help="default: the embedded tiny")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the language model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need a key"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument(
        "--api-key", action="append", metavar="KEY",
        help="asked of every request; may be said again: each key has uploads of its own "
        "(or VIDEOLLM_API_KEY, which others on this machine cannot see; several with commas between them)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host", action="append", metavar="NAME[:PORT]",
        help="files may be fetched from this host, by https; may be said again; default: nothing is fetched",
    )  # fmt: skip
    parser.add_argument("--index", metavar="INDEX", help="what videollm index has made; everybody may search it")
    parser.add_argument(
        "--encoder", metavar="NAME|DIR",
        help="a LaViLa dual encoder (tiny_dual_encoder): moments are found by what is seen, too; the index's, if given",
    )  # fmt: skip
    parser.add_argument("--at-once", type=int, metavar="N", help="questions answered together, at most")
    parser.add_argument("--waiting", type=int, metavar="N", help="questions that wait; one more is refused (429)")


def run(args: argparse.Namespace) -> int:
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"the service needs {package}; pip install 'videollm[serve]'")
    from videollm.cli.chat import quiet

    quiet()
    from videollm.serving.access import hosts_for
    from videollm.serving.listening import GRACE_SECONDS, address_of, bound, listen

    for name in ("at_once", "waiting"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, found {value}")
    named = os.environ.get("VIDEOLLM_API_KEY", "").split(",")
    keys = frozenset(args.api_key or [key.strip() for key in named if key.strip()])
    hosts = hosts_for(args.host, *keys)
    from videollm.models import hub
    from videollm.serving.fetching import Fetcher

    hub.find(args.model)
    fetcher = Fetcher(args.allow_host or ())
    moments = None
    if args.index is not None:
        from videollm.moments.store import MomentStore

        moments = MomentStore.open(args.index)
    if args.encoder is not None:
        from videollm.moments.embed import name_of

        name = name_of(args.encoder)
        if moments is not None:
            moments.check_encoder("seen", name)
    sock = bound(args.host, args.port)
    from videollm.serving.app import service
    from videollm.serving.model_worker import ModelChoice, ModelWorker, WorkerLimits
    from videollm.serving.uploads import UploadStore

    told = {name: getattr(args, name) for name in ("at_once", "waiting") if getattr(args, name) is not None}
    choice = ModelChoice(args.model, args.bits, args.device, args.encoder)
    worker, store = ModelWorker(choice, WorkerLimits(**told)).start(), UploadStore()

    def ended() -> None:
        worker.close(GRACE_SECONDS)
        store.close()

    print(f"videollm: {address_of(sock, args.host)}/v1 answers as OpenAI's API does  (Ctrl-C ends it)", flush=True)
    listen(service(worker, store, hosts, keys, fetcher=fetcher, moments=moments), sock, ended)
    return 0
