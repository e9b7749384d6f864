"""The contract of an engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from tlkit.errors import DataError
from tlkit.parts.engine import Engine
from tlkit.testing.runner import CheckFailed, PartUnderTest

#: Blocks that an engine is given: some, and so many that they must not all be taken at once.
FEW, MANY = 20, 10_000
#: The block that a worker refuses, and what it says.
REFUSED, REASON = 7, "block 7 cannot be read"


@dataclass(frozen=True)
class StartWorker:
    """Makes workers that only say which block they were given.

    Attributes:
        refuses: whether they refuse one block.
    """

    refuses: bool = False

    def __call__(self, processors: int | None) -> Callable[[int], tuple[int, str]]:
        return Worker(self.refuses)


@dataclass(frozen=True)
class Worker:
    """A worker.

    Attributes:
        refuses: whether it refuses one block.
        name: tells workers apart.
    """

    refuses: bool
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, block: int) -> tuple[int, str]:
        if self.refuses and block == REFUSED:
            raise DataError(REASON)
        return block, self.name


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
    done = list(engine(StartWorker(), iter(range(FEW)), notes.append))
    numbers = sorted(number for number, _ in done)
    if numbers != list(range(FEW)):
        raise CheckFailed(
            expected=f"the results of blocks 0 to {FEW - 1}, each once",
            got=f"{len(numbers)} results, of {len(set(numbers))} blocks",
            fix="yield what the worker returns, for every block",
        )
    if len({worker for _, worker in done}) == FEW:
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
        list(engine(StartWorker(refuses=True), iter(range(FEW)), lambda _: None))
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


CHECKS = (every_block_is_computed_once, blocks_are_taken_as_they_are_needed, errors_reach_the_caller)
