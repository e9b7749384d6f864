"""What an engine is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

Block = TypeVar("Block")
Done = TypeVar("Done")


class Engine(Protocol):
    """What an engine's factory returns: computes blocks of images in workers, here or on other computers."""

    def __call__(
        self,
        start: Callable[[int | None], Callable[[Block], Done]],
        blocks: Iterable[Block],
        note: Callable[[str], object],
        /,
    ) -> Generator[Done]:
        """Computes blocks; closing what it returns ends the workers.

        Args:
            start: makes a worker in the process that calls it: a function that computes a block. It can be
                pickled, and is small, since a worker makes its network itself. Its argument is the number of
                processors that the worker may use; None: as many as any process.
            blocks: the blocks, which can be pickled; `str` names one for the user. There may be many: take
                them when workers need them.
            note: tells the user something, such as the number of workers.

        Yields:
            What the workers return, in any order. If a worker is lost, leave its blocks out: tlkit finds out
            what is missing of them.

        Raises:
            TlkitError: what a worker raised.
        """
