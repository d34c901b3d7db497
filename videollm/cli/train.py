"""``videollm train RECIPE.yaml``: run a training recipe; an interrupted run goes on where it stopped."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    parser.add_argument("recipe", help="a YAML file of train_configs/, or your own")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, e.g. --set steps=100 or --set world.samples=500",
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew: checkpoints in the run's folder are deleted"
    )
    # The launcher of DeepSpeed adds it; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from videollm.training.recipe import read_recipe

    recipe = read_recipe(args.recipe, args.set)
    from videollm.training import processes
    from videollm.training.run import train

    folder = train(recipe, resume=not args.restart)
    if processes.is_first():
        print(f"trained parts: {folder}")
    if processes.count() > 1 or recipe.deepspeed:
        processes.leave()
    return 0
