"""The service under load: many clients who upload, ask by stream, and sometimes vanish; and the same one by one.

Two services of `tiny` run on this machine, `videollm serve` as anybody starts it: one answers together, the other one
question at a time (`--at-once 1`). The clients go to one after the other and back, so that a busy machine is busy for
both. Each client uploads a clip, asks one to six questions about it, takes it away, and begins again; one answer in
five is left after its first word, in the middle of a long answer.

    python scripts/bench/load.py [--clients N] [--minutes N]
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

T = TypeVar("T")
CLIPS = sorted((Path(__file__).parents[2] / "videollm" / "assets" / "clips").glob("*.mp4"))
QUESTIONS = ["What is in the video?", "What do you hear?", "Which colour has it?", "What happens first?"]
TELL_ALL, SEEDS = "Tell me everything.", 20
VANISHING = 0.2
FINISHED_GOAL, RATIO_GOAL, GROWTH_GOAL, STOPPED_GOAL_SECONDS = 0.9, 1.5, 1.05, 1.0
POLL_SECONDS, MEMORY_SECONDS = 0.05, 1.0


class Service:
    """`videollm serve` on a free port."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "videollm", "serve", "--port", "0", *flags], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+(?=/v1)", line)
        if found is None:
            sys.exit(f"the service did not start: {line!r}")
        self.address = found.group()

    def memory_bytes(self) -> Counter[str]:
        """Resident, of the service and its processes, by what they do."""
        found: Counter[str] = Counter()
        for process in [mine := psutil.Process(self.process.pid), *mine.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                told = " ".join(process.cmdline())
                role = "model" if "engine_process" in told else "files" if "decode_worker" in told else "service"
                found[role] += process.memory_info().rss
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@dataclass
class Seen:
    """What the clients of one service saw."""

    seconds: float = 0.0
    finished: int = 0
    refused: int = 0
    unfinished: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    first_word_seconds: list[float] = field(default_factory=list)
    vanished_at: list[float] = field(default_factory=list)
    stopped_at: list[float] = field(default_factory=list)
    memory: list[Counter[str]] = field(default_factory=list)
    metrics: str = ""
    """What the service itself counted, in the end."""

    @property
    def per_minute(self) -> float:
        return 60 * self.finished / self.seconds

    @property
    def stop_seconds(self) -> list[float]:
        """From each leaving to the end of the work, the first leaving with the first end, and so on.

        As many answers as leavings are left over ended by themselves: those for which the next end comes too late.
        What the service itself counts (`known_seconds`) has no such doubt.
        """
        left, over = deque(self.vanished_at), len(self.vanished_at) - len(self.stopped_at)
        found: list[float] = []
        for stopped in self.stopped_at[: len(left)]:
            while over > 0 and stopped - left[0] > STOPPED_GOAL_SECONDS:
                left.popleft()
                over -= 1
            found.append(stopped - left.popleft())
        return found

    @property
    def known_seconds(self) -> dict[str, float]:
        """From when the service knew that a client was gone to the end of the work, by quantile."""
        told = re.findall(r'^videollm_stop_seconds\{quantile="([^"]+)"\} (\S+)', self.metrics, re.MULTILINE)
        return {quantile: float(took) for quantile, took in told}


def message(media_id: str, question: str) -> dict[str, Any]:
    part = {"type": "video_url", "video_url": {"url": f"media:{media_id}"}}
    return {"role": "user", "content": [part, {"type": "text", "text": question}]}


async def words(response: httpx.Response) -> AsyncIterator[tuple[str, str | None]]:
    """(words, why it ended) of a streamed answer. Raises RuntimeError with an error told in the stream."""
    async for line in response.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise RuntimeError(event["error"]["message"])
        for choice in event.get("choices", ()):
            yield choice["delta"].get("content") or "", choice.get("finish_reason")


class Client:
    """Somebody with one question after the other."""

    def __init__(self, http: httpx.AsyncClient, seen: Seen, rng: random.Random, long: dict[str, Any]) -> None:
        self.http, self.seen, self.rng, self.long = http, seen, rng, long

    async def live(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                await self.converse(until)
            except (httpx.HTTPError, RuntimeError, KeyError) as error:
                self.seen.errors.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(1.0)

    async def converse(self, until: float) -> None:
        clip = self.rng.choice(CLIPS)
        media_id = await self.upload(clip)
        if media_id is None:
            return
        messages: list[dict[str, Any]] = []
        for _ in range(self.rng.randint(1, 6)):
            if time.monotonic() >= until:
                break
            if self.rng.random() < VANISHING:
                await self.ask([{"role": "user", "content": TELL_ALL}], vanish=True, **self.long)
                continue
            question = self.rng.choice(QUESTIONS)
            asked = {"role": "user", "content": question} if messages else message(media_id, question)
            answer = await self.ask([*messages, asked])
            if answer is None:
                break
            messages += [asked, {"role": "assistant", "content": answer}]
        await self.http.delete(f"/v1/media/{media_id}")

    async def upload(self, clip: Path) -> str | None:
        answer = await self.http.post("/v1/media", params={"name": clip.name}, content=clip.read_bytes())
        if not await self.refused(answer):
            answer.raise_for_status()
            return answer.json()["id"]
        return None

    async def ask(self, messages: Sequence[dict[str, Any]], *, vanish: bool = False, **options: Any) -> str | None:
        """The answer; None where it was refused, or left."""
        body = {"model": "tiny", "messages": messages, "stream": True, **options}
        began = time.monotonic()
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            if await self.refused(response):
                return None
            response.raise_for_status()
            text, ended = "", None
            try:
                async for piece, finish in words(response):
                    if piece and not text:
                        self.seen.first_word_seconds.append(time.monotonic() - began)
                        if vanish:
                            break
                    text, ended = text + piece, finish or ended
            except (httpx.HTTPError, RuntimeError) as error:
                self.seen.unfinished.append(f"{type(error).__name__}: {error}")
                return None
        if vanish:
            self.seen.vanished_at.append(time.monotonic())
            return None
        if ended not in ("stop", "length"):
            self.seen.unfinished.append(f"ended with {ended}")
            return None
        self.seen.finished += 1
        return text

    async def refused(self, response: httpx.Response) -> bool:
        """Waits as told where there is no room; anything else that is no success is an error."""
        if response.status_code != 429:
            return False
        self.seen.refused += 1
        await response.aread()
        if "error" not in response.json():
            self.seen.errors.append(f"a 429 without a word: {response.text[:100]}")
        await asyncio.sleep(float(response.headers.get("retry-after", 1)) * self.rng.uniform(0.5, 1.5))
        return True


def stops(address: str, seen: Seen, ended: threading.Event) -> None:
    """In a thread: notes when work was stopped, from the service's own counts."""
    counted = None
    with httpx.Client(base_url=address, timeout=60) as http:
        while not ended.wait(POLL_SECONDS):
            seen.metrics = http.get("/metrics").text
            found = re.search(r'^videollm_turns_total\{finish="stopped"\} (\d+)', seen.metrics, re.MULTILINE)
            stopped = int(found.group(1)) if found else 0
            seen.stopped_at += [time.monotonic()] * (0 if counted is None else stopped - counted)
            counted = stopped


def memory(service: Service, seen: Seen, ended: threading.Event) -> None:
    """In a thread: notes what the service takes."""
    while not ended.wait(MEMORY_SECONDS):
        seen.memory.append(service.memory_bytes())


async def under_load(service: Service, seen: Seen, clients: int, seconds: float, long: dict[str, Any]) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    ended = threading.Event()
    watching = [
        asyncio.create_task(asyncio.to_thread(stops, service.address, seen, ended)),
        asyncio.create_task(asyncio.to_thread(memory, service, seen, ended)),
    ]
    async with httpx.AsyncClient(base_url=service.address, timeout=300, limits=limits) as http:
        began = time.monotonic()
        people = [Client(http, seen, random.Random(1000 * number + seen.finished), long) for number in range(clients)]
        await asyncio.gather(*(client.live(began + seconds) for client in people))
        seen.seconds += time.monotonic() - began
        await asyncio.sleep(2.0)
    ended.set()
    for outcome in await asyncio.gather(*watching, return_exceptions=True):
        if isinstance(outcome, Exception):
            seen.errors.append(f"while watching: {outcome}")


async def ready(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.address, timeout=300) as http:
        while True:
            with contextlib.suppress(httpx.ConnectError):  # it does not listen yet
                if (await http.get("/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.2)


async def long_options(service: Service) -> dict[str, Any]:
    """Options with which the answer to `TELL_ALL` is long: of some seeds, the one that says most."""
    found: list[tuple[int, int]] = []
    async with httpx.AsyncClient(base_url=service.address, timeout=300) as http:
        for seed in range(SEEDS):
            messages = [{"role": "user", "content": TELL_ALL}]
            body = {"model": "tiny", "messages": messages, "temperature": 2.0, "seed": seed, "max_tokens": 250}
            answer = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
            found.append((answer["usage"]["completion_tokens"], seed))
    tokens, seed = max(found)
    print(f"who leaves, leaves an answer of {tokens} tokens")
    return {"temperature": 2.0, "seed": seed, "max_tokens": 250}


def share(values: Sequence[float], quantile: float) -> float:
    return sorted(values)[min(len(values) - 1, int(quantile * len(values)))] if values else float("nan")


def told(name: str, seen: Seen) -> None:
    firsts, stopped = seen.first_word_seconds, seen.stop_seconds
    asked = seen.finished + len(seen.unfinished)
    print(
        f"{name}: {seen.finished} turns in {seen.seconds:.0f} s, {seen.per_minute:.0f} a minute; {seen.refused} "
        f"refused (429), {len(seen.errors)} errors; {seen.finished / max(asked, 1):.1%} of {asked} admitted finished"
    )
    print(
        f"  first word: p50 {share(firsts, 0.5):.2f} s, p99 {share(firsts, 0.99):.2f} s; {len(seen.vanished_at)} left "
        f"in the middle, of whose work {len(stopped)} stopped, after p50 {share(stopped, 0.5):.2f} s, at most "
        f"{max(stopped, default=float('nan')):.2f} s"
    )
    known = (f"{quantile}: {took:.3f} s" for quantile, took in seen.known_seconds.items())
    print("  of it, from when the service knew, by quantile: " + ", ".join(known))
    for role in sorted({role for sample in seen.memory for role in sample}):
        shown = [f"{statistics.median(one[role] for one in part) / 2**20:.0f}" for part in thirds(seen.memory)]
        print(f"  memory of the {role}, first, middle and last third: {', '.join(shown)} MiB")
    for words in sorted(set(seen.errors + seen.unfinished))[:5]:
        print(f"  {words}")


def thirds(samples: Sequence[T]) -> list[Sequence[T]]:
    third = len(samples) // 3
    return [samples[:third], samples[third : 2 * third], samples[2 * third :]]


def growth(samples: Sequence[int]) -> float:
    """Memory of the last third against the middle one: the first is the warm-up."""
    _, middle, last = thirds(samples)
    return statistics.median(last) / statistics.median(middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=3.0, help="of load on the service that answers together")
    args = parser.parse_args()
    services = {"together": Service(), "one by one": Service("--at-once", "1")}
    seen = {name: Seen() for name in services}
    try:
        for service in services.values():
            asyncio.run(ready(service))
        long = asyncio.run(long_options(services["together"]))
        for name in ("together", "one by one", "one by one", "together"):
            seconds = args.minutes * 60 / 2 * (1 if name == "together" else 0.5)
            asyncio.run(under_load(services[name], seen[name], args.clients, seconds, long))
    finally:
        for service in services.values():
            service.end()
    print()
    for name in services:
        told(name, seen[name])
    together, alone = seen["together"], seen["one by one"]
    finished = together.finished / max(together.finished + len(together.unfinished), 1)
    slowest = max(*together.stop_seconds, together.known_seconds.get("1", 0.0), 0.0)
    memory = [sample.total() for sample in together.memory]
    checks = {
        "no errors but 429": not together.errors and not alone.errors,
        f"finished {finished:.1%}, goal {FINISHED_GOAL:.0%}": finished >= FINISHED_GOAL,
        f"{together.per_minute / alone.per_minute:.2f} times the turns of one by one, goal {RATIO_GOAL}": (
            together.per_minute / alone.per_minute >= RATIO_GOAL
        ),
        f"memory {memory[-1] / 2**20:.0f} MiB, in the last third {growth(memory):.3f} times that of the middle one, "
        f"goal {GROWTH_GOAL}": growth(memory) <= GROWTH_GOAL,
        f"the work of {len(together.stop_seconds)} of {len(together.vanished_at)} who left was stopped within "
        f"{slowest:.2f} s (the others' answers had ended), goal {STOPPED_GOAL_SECONDS:.0f}": (
            0 < slowest <= STOPPED_GOAL_SECONDS
        ),
    }
    for what, met in checks.items():
        print(f"{'met   ' if met else 'MISSED'} {what}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
