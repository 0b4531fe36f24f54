"""Work spread over processes, for the commands that build and check tile sets."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm


class PoolError(Exception):
    """A worker process died; str() is one line."""


def map_unordered(function, jobs, workers, label):
    """Yield function(job) of each job as it is done, here or in up to `workers` new processes, under a progress bar.

    Leaving the loop early cancels what has not begun. Workers end with the process that started them, even if it is
    killed.
    """
    with tqdm(total=len(jobs), desc=label, disable=None, smoothing=0.05) as bar:
        if min(workers, len(jobs)) <= 1:
            for job in jobs:
                yield function(job)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _end_with_parent)
        try:
            for future in as_completed([pool.submit(function, job) for job in jobs]):
                yield future.result()
                bar.update()
        except BrokenProcessPool:
            raise PoolError(
                f"{label}: a worker process died (out of memory, or a crash inside a codec); "
                "fewer --workers need less memory"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def default_workers():
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it cancels what has not begun

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
