"""Runs recipes in one or several processes: ``python -m tests.training.ranks``, with a job a line on its stdin.

A job is ``{"recipe": FILE, "processes": N}``; the answer, a line on stdout, holds the exit codes. Each process of a run
is forked with the environment that torchrun would give it, so that the libraries are imported once for all runs. What
it prints goes into ``OUTPUT.log`` of the recipe's output.
"""

import contextlib
import json
import os
import random
import signal
import socket
import sys
import traceback

from videollm.training.recipe import read_recipe
from videollm.training.run import train


def rank(recipe, number, count, port):
    if count > 1:
        given = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in given.items()})
    log = os.open(f"{recipe.output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        train(recipe)
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def free_port():
    """A port below those that the system gives to connections of its own, as tests beside this one open."""
    while True:
        port = random.randint(10_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def run(job):
    recipe, count = read_recipe(job["recipe"]), job["processes"]
    port = free_port()
    running = {}
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            rank(recipe, number, count, port)
        running[pid] = number
    codes = [None] * count
    while running:
        pid, status = os.wait()
        if pid not in running:
            continue
        codes[running.pop(pid)] = code = os.waitstatus_to_exitcode(status)
        if code:
            for other in running:  # it would wait for ever
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
    return codes


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
