"""Work spread over processes, for the commands that build and check tile sets."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from runtime.errors import Refused


def map_unordered(function, jobs, workers, label, died=None):
    """Yield function(job) of each job as it is done, here or in up to `workers` new processes, under a progress bar.

    Leaving the loop early cancels what has not begun; Ctrl-C ends what has, too. Workers end with the process that
    started them, even if it is killed.

    died: what stands for the result of a job whose process dies, died(job). A death takes all that was under way with
          it: those jobs are done again, one at a time, which tells whose it was. No job is done in this process then.
    raises: Refused where a process dies, without `died`
    """
    with tqdm(total=len(jobs), desc=label, disable=None, smoothing=0.05) as bar:
        if min(workers, len(jobs)) <= 1 and died is None:
            for job in jobs:
                yield function(job)
                bar.update()
            return
        waiting, suspects, under_way = deque(jobs), deque(), {}
        while waiting or suspects:
            try:
                for result in _results(function, suspects or waiting, 1 if suspects else workers, under_way):
                    yield result
                    bar.update()
            except BrokenProcessPool:
                if died is None:
                    raise Refused(
                        f"{label}: a worker process died (out of memory, or a crash inside a codec); "
                        "fewer --workers need less memory"
                    ) from None
                if len(under_way) == 1:
                    yield died(*under_way.values())
                    bar.update()
                else:
                    suspects.extend(under_way.values())


def _results(function, jobs, workers, under_way):
    """Take jobs off a queue, do them in new processes and yield the results; `under_way` becomes {future: job}."""
    workers = min(workers, len(jobs))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    under_way.clear()
    try:
        while jobs or under_way:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what starts here inherits it
            while jobs and len(under_way) < (2 * workers if workers > 1 else 1):
                future = pool.submit(function, jobs[0])
                under_way[future] = jobs.popleft()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                result = future.result()
                del under_way[future]
                yield result
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.kill()  # it leaves no half file under a final name, and its job is begun anew
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def default_workers():
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
