"""`videollm demo`: the page in a browser, on this machine only unless an API key is given."""

from __future__ import annotations

import argparse
import importlib.util
import os

from videollm.errors import MissingDependencyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|DIR",
        help="default: the embedded tiny; given several times, the page offers them all and starts with the first",
    )
    parser.add_argument("--bits", type=int, choices=(4, 8), help="start with the language model quantised")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need a key"
    )
    parser.add_argument("--port", type=int, default=7860, help="0 takes any free one")
    parser.add_argument("--api-key", metavar="KEY", help="asked for by the browser as a password (or VIDEOLLM_API_KEY)")
    parser.add_argument("--open", action="store_true", help="open a browser")


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise MissingDependencyError("the page needs gradio; pip install 'videollm[demo]'")
    from videollm.cli.chat import quiet

    quiet()
    from videollm.serving.access import hosts_for
    from videollm.serving.listening import GRACE_SECONDS, address_of, bound, listen

    key = args.api_key or os.environ.get("VIDEOLLM_API_KEY") or None
    hosts = hosts_for(args.host, key)
    sock = bound(args.host, args.port)
    print("videollm: starting", flush=True)
    from videollm.models import hub

    models = args.model or ["tiny"]
    for model in models:
        hub.find(model)
    from videollm.serving.model_worker import ModelWorker
    from videollm.serving.ui import Page, choices_of
    from videollm.serving.uploads import UploadStore

    choices = choices_of(models, args.bits, args.device)
    worker = ModelWorker(choices[0]).start()
    store = UploadStore()
    address = address_of(sock, args.host)

    def ended() -> None:
        worker.close(GRACE_SECONDS)
        store.close()

    try:
        page = Page(worker, store, choices, cookie=f"videollm-{sock.getsockname()[1]}")
        app = page.app(page.rules(hosts, key))
    except BaseException:
        ended()
        raise
    print(f"videollm: the page is at {address}  (Ctrl-C ends it)", flush=True)
    if args.open:
        import webbrowser

        webbrowser.open(address)
    listen(app, sock, ended)
    return 0
