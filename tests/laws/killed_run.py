"""A training run that is killed where it is told: ``python -m tests.laws.killed_run RECIPE.yaml PLACE...``

Each place is ``whole``, or ``step:N``, ``write:N``, ``between:N``: SIGKILL inside step N, inside the N-th file of
optimizer state that this process writes, or behind step N; or ``interrupt:N``: Ctrl-C behind step N. Every run is a
process of its own that goes on where the one before left off, so that the libraries are imported once. The positions of
the samples that each took are appended to ``positions.jsonl`` beside the recipe.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from videollm.data.collate import TrainingItems
from videollm.training import run as training_run
from videollm.training.recipe import read_recipe
from videollm.training.trainer import StageTrainer, StopOnInterrupt


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def child(recipe, place, positions):
    kind, _, number = place.partition(":")
    taken = TrainingItems.__getitem__

    def noted(self, position):
        with positions.open("a") as file:
            file.write(f"{json.dumps([os.getpid(), position])}\n")
        return taken(self, position)

    TrainingItems.__getitem__ = noted
    if kind == "step":
        compute, seen = StageTrainer.compute_loss, []

        def last(self, model, inputs, *args, **kwargs):
            loss = compute(self, model, inputs, *args, **kwargs)
            if self.state.global_step + 1 == int(number):
                seen.append(1)
                if len(seen) == 2:  # in the second of its batches, with gradients of the first
                    die()
            return loss

        StageTrainer.compute_loss = last
    elif kind == "write":
        save, written = torch.save, []

        def half(value, path, *args, **kwargs):
            save(value, path, *args, **kwargs)
            written.append(path)
            if sum(Path(one).name == "optimizer.pt" for one in written) == int(number):
                os.truncate(path, os.path.getsize(path) // 2)
                die()

        torch.save = half
    elif kind in ("between", "interrupt"):

        def at_begin(self, args, state, control, **_):
            if state.global_step == int(number):
                os.kill(os.getpid(), signal.SIGKILL if kind == "between" else signal.SIGINT)

        StopOnInterrupt.on_step_begin = at_begin
    try:
        training_run.train(recipe)
    except KeyboardInterrupt:
        os._exit(130)


def main(path, *places):
    recipe = read_recipe(path)
    positions = Path(path).with_name("positions.jsonl")
    ends = []
    for place in places:
        pid = os.fork()
        if pid == 0:
            child(recipe, place, positions)
            sys.stdout.flush()
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
