"""Runs jobs several at a time, shows progress, goes on past bad files, and says which failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from velatura.client.cli.files import Job
from velatura.client.errors import (
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    VelaturaError,
)

# What every other file would meet too: going on would only repeat it.
_HOPELESS = (Unavailable, Unauthenticated, PermissionDenied, Unimplemented)


def run(jobs: Sequence[Job], work: Callable[[Job], str], verb: str, parallel: int) -> int:
    """Call `work` for each job; what it returns is said of a lone one. Returns the exit code."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    started = time.monotonic()
    failed: dict[Job, str] = {}
    stopped = False
    progress = Progress(
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=len(jobs) < 2 or not errors.is_terminal,
    )
    with progress, ThreadPoolExecutor(max_workers=min(parallel, len(jobs))) as pool:
        bar = progress.add_task(verb, total=len(jobs))
        futures = {pool.submit(work, job): job for job in jobs}
        for future in _cancelling(pool, as_completed(futures)):
            if future.cancelled():
                continue
            progress.advance(bar)
            problem = _problem(future)
            if problem is None:
                if len(jobs) == 1:
                    print(future.result())
                continue
            job = futures[future]
            failed[job] = explain(problem)
            errors.print(f"velatura: {job.source}: {failed[job]}", markup=False)
            if isinstance(problem, _HOPELESS):
                stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
    if len(jobs) > 1:
        _summarise(errors, jobs, failed, stopped, verb, time.monotonic() - started)
    return 1 if failed else 0


def explain(error: BaseException) -> str:
    """The error in one line, with what to do where the message alone does not say."""
    text = " ".join(str(error).split())
    if isinstance(error, Unavailable):
        return f"{text}; is the server running there? --server or VELATURA_SERVER names it"
    return text


def _cancelling(pool: ThreadPoolExecutor, futures: Iterator[Future[str]]) -> Iterator[Future[str]]:
    """Pass on what is done; on Ctrl-C (or a defect) drop what has not begun."""
    try:
        yield from futures
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _problem(future: Future[str]) -> BaseException | None:
    """What went wrong, where a file or the server can be the cause; defects are raised."""
    error = future.exception()
    if error is not None and not isinstance(error, (VelaturaError, OSError)):
        raise error
    return error


def _summarise(
    errors: Console,
    jobs: Sequence[Job],
    failed: dict[Job, str],
    stopped: bool,
    verb: str,
    seconds: float,
) -> None:
    if not failed:
        errors.print(f"{verb}: {len(jobs)} files in {seconds:.1f} s")
        return
    names = ", ".join(str(job.source) for job in jobs if job in failed)
    tail = "; stopped there, since the others would meet the same" if stopped else ""
    errors.print(
        f"velatura: {len(failed)} of {len(jobs)} files failed: {names}{tail}", markup=False
    )
