"""Work spread over processes, for the commands that build and check tile sets."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from runtime.errors import Refused


def map_unordered(function, jobs, workers, label):
    """Yield function(job) of each job as it is done, here or in up to `workers` new processes, under a progress bar.

    Leaving the loop early cancels what has not begun; Ctrl-C ends what has, too. raises: Refused where a process dies
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for job in tqdm(jobs, desc=label, disable=None):
            yield function(job)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what starts here inherits it: Ctrl-C is the parent's
        futures = [pool.submit(function, job) for job in jobs]
        signal.signal(signal.SIGINT, heeded)
        for future in tqdm(as_completed(futures), total=len(jobs), desc=label, disable=None, smoothing=0.05):
            yield future.result()
    except BrokenProcessPool:
        raise Refused(f"{label}: a worker process died (out of memory?); fewer --workers need less memory") from None
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.kill()  # it leaves no half file under a final name, and its job is begun anew
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def default_workers():
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
