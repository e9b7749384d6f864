"""Gives blocks to actors, a few at a time, and replaces actors that are lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tlkit import EngineError, TlkitError
from tlkit_ray.library import ray

Block = TypeVar("Block")
Done = TypeVar("Done")
#: Stands for the block after the last one.
END: Any = object()
#: How many actors may be lost before they have started, in a row, for each that there is.
LOSSES = 3
#: Seconds without any news after which the user is told what is being waited for.
SILENCE = 60.0


@dataclass(frozen=True)
class Size:
    """What an actor needs.

    Attributes:
        cpus: processors.
        gpus: graphics cards.
    """

    cpus: int
    gpus: float

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' * (self.cpus != 1)}"
        return cpus + (f" and {self.gpus:g} GPU{'s' * (self.gpus != 1)}" if self.gpus else "")

    def fits(self, resources: dict[str, float]) -> int:
        """Returns how many actors a computer with these resources has room for."""
        by_gpus = resources.get("GPU", 0) / self.gpus if self.gpus else math.inf
        return int(min(resources.get("CPU", 0) / self.cpus, by_gpus))


class Worker:
    """What runs in an actor."""

    def start(self, start: Callable[[int | None], Callable[[Any], Any]], cpus: int) -> None:
        """Makes the worker, which takes seconds."""
        self._work = start(cpus)

    def compute(self, block: Any) -> Any:
        """Computes a block."""
        return self._work(block)


def compute(
    start: Callable[[int | None], Callable[[Block], Done]],
    blocks: Iterable[Block],
    note: Callable[[str], object],
    count: int | None,
    size: Size,
) -> Generator[Done]:
    """Computes blocks in actors; yields what they return, except for blocks that are lost with their actor.

    Raises:
        EngineError: the cluster has no room for an actor, or actors are lost before they compute anything.
        TlkitError: what an actor raised.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    room = sum(map(size.fits, resources))
    if not room and not count:
        cpus, gpus = (sum(node.get(name, 0) for node in resources) for name in ("CPU", "GPU"))
        raise EngineError(
            f"no computer of the Ray cluster has {size}, which an actor is to have (all together have "
            f"{Size(int(cpus), gpus)}): lower compute.engine.cpus or gpus"
        )
    count = count or room
    computers = f"{len(resources)} computer{'s' * (len(resources) != 1)}"
    note(f"Ray: {count} actor{'s' * (count != 1)} of {size} each, on {computers}")
    if count > room:
        note(f"the cluster has room for {room} of them now; the others start when there is more")
    actors = Actors(start, size)
    try:
        for _ in range(count):
            actors.add()
        yield from actors.compute(iter(blocks), note, LOSSES * count)
    finally:
        actors.close()


class Actors:
    """The actors, each of which starts or computes one block at a time."""

    def __init__(self, start: Callable[[int | None], Callable[[Any], Any]], size: Size) -> None:
        """Takes what makes a worker in an actor, and what an actor needs."""
        self._make: Any = ray.remote(num_cpus=size.cpus, num_gpus=size.gpus)(Worker)
        self._size = size
        self._start = ray.put(start)
        self._all: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._computing: dict[Any, Any] = {}

    def add(self) -> None:
        """Starts an actor, as soon as the cluster has room for it."""
        actor = self._make.remote()
        self._all.append(actor)
        self._starting[actor.start.remote(self._start, self._size.cpus)] = actor

    def close(self) -> None:
        """Ends all actors."""
        for actor in self._all:
            ray.kill(actor)

    def compute(self, blocks: Iterator[Block], note: Callable[[str], object], losses: int) -> Generator[Done]:
        """Computes blocks; see `compute`.

        Args:
            blocks: the blocks.
            note: tells the user something.
            losses: how many actors may be lost before they have started, in a row.
        """
        upcoming, lost = next(blocks, END), 0
        while self._computing or (self._starting and upcoming is not END):
            reference = self._next(note)
            is_block = reference in self._computing
            actor = (self._computing if is_block else self._starting).pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, TlkitError) else error) from None
            except ray.exceptions.RayError as error:
                lost += not is_block
                reason = str(error).strip().splitlines()[0]
                if lost > losses:
                    raise EngineError(f"{lost} actors were lost before they had started: {reason}") from error
                note(f"an actor was lost ({reason}); another one takes its place")
                self._all.remove(actor)
                ray.kill(actor)  # it may only be out of reach
                self.add()
                continue
            lost = 0
            if upcoming is not END:
                self._computing[actor.compute.remote(upcoming)] = actor
                upcoming = next(blocks, END)
            if is_block:
                yield result

    def _next(self, note: Callable[[str], object]) -> Any:
        """Waits until an actor has started, computed a block or been lost; returns what it was told to do."""
        while True:
            ready, _ = ray.wait([*self._computing, *self._starting], timeout=SILENCE)
            if ready:
                return ready[0]
            if not self._computing:
                note(f"no actor has started yet: each needs {self._size}, and `ray status` says who has them")
