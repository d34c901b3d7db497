"""Processes that media tests start, apart from what stays of multiprocessing once any test of the run has used it."""

import psutil

_OTHERS = {child.pid for child in psutil.Process().children(recursive=True)}


def own_children(recursive: bool = True) -> list[psutil.Process]:
    """Children of this process that were not there when the media tests were first used."""
    return [
        child
        for child in psutil.Process().children(recursive=recursive)
        if child.pid not in _OTHERS and not _is_of_multiprocessing(child)
    ]


def _is_of_multiprocessing(child: psutil.Process) -> bool:
    """Its tracker, or the server that forks for it."""
    try:
        return "from multiprocessing." in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return True
