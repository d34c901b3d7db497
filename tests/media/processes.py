"""Processes that media tests start, apart from what other tests of the same run left (multiprocessing's tracker)."""

import psutil

_OTHERS = {child.pid for child in psutil.Process().children(recursive=True)}


def own_children(recursive: bool = True) -> list[psutil.Process]:
    """Children of this process that were not there when the media tests were first used."""
    return [
        child
        for child in psutil.Process().children(recursive=recursive)
        if child.pid not in _OTHERS and not _tracks(child)
    ]


def _tracks(child: psutil.Process) -> bool:
    try:
        return "resource_tracker" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return True
