"""Runs jobs several at a time, shows progress, goes on past bad files, and says which failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
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
        try:
            failed, stopped = _collect(futures, errors, lambda: progress.advance(bar))
        except BaseException:  # Ctrl-C, or a defect: drop what has not begun
            _cancel(futures)
            raise
    if len(jobs) > 1:
        _summarise(errors, jobs, failed, stopped, verb, time.monotonic() - started)
    return 1 if failed else 0


def explain(error: BaseException) -> str:
    """The error in one line, with what to do where the message alone does not say."""
    text = " ".join(str(error).split())
    if isinstance(error, Unavailable):
        return f"{text}; is the server running there? --server or VELATURA_SERVER names it"
    return text


def _collect(
    futures: dict[Future[str], Job], errors: Console, advance: Callable[[], None]
) -> tuple[set[Job], bool]:
    """Wait for every job, say what fails; returns what failed and whether the rest was dropped."""
    failed: set[Job] = set()
    stopped = False
    for future in as_completed(futures):
        if future.cancelled():
            continue
        advance()
        error = future.exception()
        if error is None:
            if len(futures) == 1:
                print(future.result())
            continue
        if not isinstance(error, (VelaturaError, OSError)):
            raise error
        job = futures[future]
        failed.add(job)
        # A server that is gone is said once, however many requests were in flight.
        if not (stopped and isinstance(error, _HOPELESS)):
            errors.print(f"velatura: {job.source}: {explain(error)}", markup=False)
        if isinstance(error, _HOPELESS) and not stopped:
            stopped = True
            _cancel(futures)
    return failed, stopped and len(failed) < len(futures)


def _cancel(futures: Iterable[Future[str]]) -> None:
    # One by one: `shutdown(cancel_futures=True)` does not wake who waits in `as_completed`.
    for future in futures:
        future.cancel()


def _summarise(
    errors: Console, jobs: Sequence[Job], failed: set[Job], stopped: bool, verb: str, seconds: float
) -> None:
    if not failed:
        errors.print(f"{verb}: {len(jobs)} files in {seconds:.1f} s")
        return
    names = ", ".join(str(job.source) for job in jobs if job in failed)
    tail = "; stopped there, since the others would meet the same" if stopped else ""
    errors.print(
        f"velatura: {len(failed)} of {len(jobs)} files failed: {names}{tail}", markup=False
    )
