"""The processes that train together: one, those that torchrun or deepspeed started, or those of many machines."""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch

from videollm.errors import ConfigError

PATIENCE_SECONDS = 7200
"""So long a process waits for the others: one may have much more to encode than another."""


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the one that prints and writes."""
    return rank() == 0


def device() -> torch.device:
    """Of this process."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def computes_bf16() -> bool:
    """Whether this process's device has instructions for bfloat16. A CPU without them takes up to nine times as long as
    in float32."""
    return torch.cuda.is_available() or any(
        has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16")
    )


def start_deepspeed() -> None:
    """Let DeepSpeed know its processes before a model is made, which ZeRO-3 spreads over them at once.

    It takes no number of processes but from a launcher; without one there is one.
    """
    import deepspeed

    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in alone.items()})
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    patience = timedelta(seconds=PATIENCE_SECONDS)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=0, timeout=patience)


def deepspeed_config(path: str) -> dict[str, Any]:
    """What a file of DeepSpeed's says.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give a file of train_configs/deepspeed") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); correct it") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: holds no JSON object; give a file of train_configs/deepspeed")
    return config


def zero_stage(path: str | None) -> int:
    """The stage of ZeRO in a file of DeepSpeed's; 0 without one."""
    return 0 if path is None else int(deepspeed_config(path).get("zero_optimization", {}).get("stage", 0))


def wait() -> None:
    """Until every process is here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def leave() -> NoReturn:
    """End a process of several whose work is done.

    Some threads of DeepSpeed outlive the interpreter, which then aborts now and then; nothing is left to clean up.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
