"""The contract of an engine."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

import psutil

from tlkit.errors import DataError
from tlkit.parts.engine import Engine
from tlkit.testing.runner import CheckFailed, NotApplicable, PartUnderTest

#: Blocks that an engine is given: some, more than it has workers, and too many to be taken at once.
FEW, SEVERAL, MANY = 20, 200, 10_000
#: The block that a worker refuses or is lost with, and what it says when it refuses it.
SPECIAL, REASON = 7, "block 7 cannot be read"
#: Seconds in which workers end.
PATIENCE = 10.0


@dataclass(frozen=True)
class Process:
    """A process of some computer."""

    computer: str = field(default_factory=socket.gethostname)
    number: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class StartWorker:
    """Makes workers that only say which block they were given.

    Attributes:
        special: what they do with one of the blocks; None: nothing else.
        caller: the process that runs the checks, which is not ended.
    """

    special: Literal["refuse", "end"] | None = None
    caller: Process = field(default_factory=Process)

    def __call__(self, processors: int | None) -> Callable[[int], Done]:
        return Worker(self)


@dataclass(frozen=True)
class Done:
    """What a worker returns.

    Attributes:
        block: the block's number.
        worker: tells workers apart.
        process: the worker's process.
    """

    block: int
    worker: str
    process: Process


@dataclass(frozen=True)
class Worker:
    """A worker.

    Attributes:
        start: what made it.
        name: tells workers apart.
    """

    start: StartWorker
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, block: int) -> Done:
        if block == SPECIAL and self.start.special == "refuse":
            raise DataError(REASON)
        process = Process()
        if block == SPECIAL and self.start.special == "end" and process != self.start.caller:
            os._exit(1)
        return Done(block, self.name, process)


def setup(part: PartUnderTest) -> Engine:
    """Makes the engine.

    Raises:
        TypeError: it cannot be called.
    """
    engine: Engine = part.build()
    if not callable(engine):
        raise TypeError(f"the factory must return a function; it returned {type(engine).__name__}")
    return engine


def every_block_is_computed_once(engine: Engine) -> str:
    """What a worker returns comes back for every block, once; a worker computes many blocks."""
    notes: list[str] = []
    done = list(engine(StartWorker(), iter(range(SEVERAL)), notes.append))
    numbers = sorted(result.block for result in done)
    if numbers != list(range(SEVERAL)):
        raise CheckFailed(
            expected=f"the results of blocks 0 to {SEVERAL - 1}, each once",
            got=f"{len(numbers)} results, of {len(set(numbers))} blocks",
            fix="yield what the worker returns, for every block",
        )
    if len({result.worker for result in done}) == SEVERAL:
        raise CheckFailed(
            expected="workers that compute many blocks each",
            got="a new worker for each block",
            fix="call start once in a worker's process: it makes a network, which takes seconds",
        )
    return "; ".join(notes)


def blocks_are_taken_as_they_are_needed(engine: Engine) -> None:
    """Not all blocks are taken before the first one is done, so that they need not all be in memory."""
    taken = 0

    def blocks() -> Iterator[int]:
        nonlocal taken
        for block in range(MANY):
            taken += 1
            yield block

    with closing(engine(StartWorker(), blocks(), lambda _: None)) as results:
        next(results)
        if taken == MANY:
            raise CheckFailed(
                expected="a few blocks ahead of those that are done",
                got=f"all {MANY:,} of them before the first result",
                fix="take the next block when a worker has none; concurrent.futures take all",
            )


def errors_reach_the_caller(engine: Engine) -> None:
    """A worker's TlkitError is raised as it is."""
    try:
        list(engine(StartWorker("refuse"), iter(range(FEW)), lambda _: None))
    except DataError as error:
        if str(error) == REASON:
            return
        got = f"DataError: {error}"
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    else:
        got = "no error"
    raise CheckFailed(
        expected=f"tlkit.DataError: {REASON}",
        got=got,
        fix="raise a worker's own exception, not one that describes it",
    )


def closing_ends_the_workers(engine: Engine) -> None:
    """When what it returns is closed early, the workers' processes end, so that nothing computes on."""
    start = StartWorker()
    with closing(engine(start, iter(range(MANY)), lambda _: None)) as results:
        processes = {next(results).process for _ in range(FEW)}
        here = [process.number for process in processes if process.computer == start.caller.computer]
        living = [psutil.Process(number) for number in here if number != start.caller.number]
    if not living:
        raise NotApplicable("its workers are in the process that runs tlkit, or on other computers")
    _, living = psutil.wait_procs(living, timeout=PATIENCE)
    if living:
        raise CheckFailed(
            expected=f"no worker's process {PATIENCE:g} s after the generator was closed",
            got=f"{len(living)} of them",
            fix="end the workers in a finally clause around the yield",
        )


def a_lost_worker_is_no_error(engine: Engine) -> None:
    """When a worker's process ends, others go on, and only its blocks are left out."""
    start = StartWorker("end")
    try:
        done = list(engine(start, iter(range(SEVERAL)), lambda _: None))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    else:
        numbers = {result.block for result in done}
        if SPECIAL in numbers:
            raise NotApplicable("its workers are in the process that runs tlkit")
        if len(numbers) == len(done) and len(numbers) >= SEVERAL / 2:
            return
        got = f"{len(done)} results, of {len(numbers)} blocks"
    raise CheckFailed(
        expected=f"most of {SEVERAL} results, each once, though a worker is lost with block {SPECIAL}",
        got=got,
        fix="start another worker, and leave the block out: tlkit gives it to the engine again",
    )


CHECKS = (
    every_block_is_computed_once,
    blocks_are_taken_as_they_are_needed,
    errors_reach_the_caller,
    closing_ends_the_workers,
    a_lost_worker_is_no_error,
)
