"""Gives blocks to actors, a few at a time, and replaces actors that are lost."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from tlkit import EngineError, TlkitError
from tlkit_ray.library import ray

Block = TypeVar("Block")
Done = TypeVar("Done")
#: Stands for the block after the last one.
END: Any = object()
#: How many actors may be lost in a row, for each that there is, without any block being computed.
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

    def start(self, start: bytes, cpus: int) -> None:
        """Makes the worker, which takes seconds.

        Args:
            start: what makes it, pickled: what cannot be read here is then an error of this call.
            cpus: its processors.
        """
        self._work = pickle.loads(start)(cpus)

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
        EngineError: the cluster has no room for an actor, an actor fails, or actors are lost again and again.
        TlkitError: what an actor raised.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    room = sum(map(size.fits, resources))
    if not room and not count:
        cpus, gpus = (sum(node.get(name, 0) for node in resources) for name in ("CPU", "GPU"))
        raise EngineError(
            f"no computer of the Ray cluster has {size}, which an actor is to have (all together have "
            f"{Size(int(cpus), gpus)}): lower the engine's options cpus or gpus"
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
        self._start = ray.put(ray.cloudpickle.dumps(start))  # type: ignore[no-untyped-call]
        self._all: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._computing: dict[Any, tuple[Any, Any]] = {}

    def add(self) -> None:
        """Starts an actor, as soon as the cluster has room for it."""
        actor = self._make.remote()
        self._all.append(actor)
        self._starting[actor.start.remote(self._start, self._size.cpus)] = actor

    def close(self) -> None:
        """Ends all actors."""
        for actor in self._all:
            _end(actor)

    def compute(self, blocks: Iterator[Block], note: Callable[[str], object], losses: int) -> Generator[Done]:
        """Computes blocks; see `compute`.

        Args:
            blocks: the blocks.
            note: tells the user something.
            losses: how many actors may be lost in a row without any block being computed.
        """
        upcoming, lost = next(blocks, END), 0
        while self._computing or (self._starting and upcoming is not END):
            reference = self._next(note)
            block = None
            if reference in self._starting:
                actor = self._starting.pop(reference)
            else:
                actor, block = self._computing.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise _reason(error, block) from error
            except ray.exceptions.RayError as error:
                lost += 1
                task = "it was starting" if block is None else f"it computed {block}"
                reason = f"{str(error).strip().splitlines()[0]}; {task}"
                if lost > losses:
                    raise EngineError(
                        f"{lost} actors were lost in a row, and no block was computed: {reason}"
                    ) from error
                self._all.remove(actor)
                _end(actor)  # it may only be out of reach
                if upcoming is END:
                    note(f"an actor was lost ({reason})")
                else:
                    note(f"an actor was lost ({reason}); another one takes its place")
                    self.add()
                continue
            if upcoming is not END:
                self._computing[actor.compute.remote(upcoming)] = actor, upcoming
                upcoming = next(blocks, END)
            if block is not None:
                lost = 0
                yield result

    def _next(self, note: Callable[[str], object]) -> Any:
        """Waits until an actor has started, computed a block or been lost; returns what it was told to do."""
        while True:
            ready, _ = ray.wait([*self._computing, *self._starting], timeout=SILENCE)
            if ready:
                return ready[0]
            if self._computing:
                count = len(self._computing)
                note(f"no block was computed in {SILENCE:g} s; actors that compute one: {count}")
            else:
                note(
                    f"no actor has started in {SILENCE:g} s: each waits until {self._size} are free, which "
                    "`ray status` shows, and then imports torch and makes its network"
                )


def _end(actor: Any) -> None:
    """Ends an actor, unless it has ended with its cluster, which is what the user is told then."""
    with suppress(ray.exceptions.RayError, OSError, RuntimeError):
        ray.kill(actor)


def _reason(error: Any, block: Any) -> TlkitError:
    """Returns what is raised for an actor's exception while it computed a block; None: while it started."""
    cause = error.cause
    if isinstance(cause, TlkitError):
        return cause
    cause_text = ": ".join([type(cause).__name__, *str(cause).strip().splitlines()[:1]])
    if block is None:
        return EngineError(
            f"an actor could not start ({cause_text}): install the same versions of tlkit and its plugins on "
            "all computers"
        )
    return EngineError(f"an actor failed as it computed {block} ({cause_text})")
