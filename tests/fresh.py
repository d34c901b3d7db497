"""Processes that know nothing of the tests before them.

They are forked, but from a server that has imported the models and done nothing else: of this process a fork would hold
threads' locks, and what libraries remember, such as a group of processes.
"""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["videollm.models"])


def run(function, *arguments):
    """Calls it with each of these arguments in a process of its own, all at once."""
    processes = [PROCESSES.Process(target=function, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
