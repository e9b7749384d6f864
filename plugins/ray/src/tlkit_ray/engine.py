"""The engine `ray`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Annotated, TypeVar

from pydantic import Field

from tlkit import Engine

Block = TypeVar("Block")
Done = TypeVar("Done")


def ray_engine(
    *,
    address: str | None = None,
    actors: Annotated[int, Field(ge=1)] | None = None,
    cpus: Annotated[int, Field(ge=1)] = 1,
    gpus: Annotated[float, Field(ge=0)] = 0,
) -> Engine:
    """Computes in the actors of a Ray cluster. All of its computers need tlkit, the images and the store.

    Args:
        address: the cluster's, such as "10.0.0.1:6379"; unless given, that of the environment variable
            RAY_ADDRESS, else of the cluster that this computer is in, else a cluster of this computer alone.
        actors: number of actors; as many as the cluster has room for unless given.
        cpus: processors of each actor, and threads that it computes and reads images with.
        gpus: graphics cards of each actor, which may be a fraction.
    """
    return partial(_compute, address, actors, cpus, gpus)


def _compute(
    address: str | None,
    actors: int | None,
    cpus: int,
    gpus: float,
    start: Callable[[int | None], Callable[[Block], Done]],
    blocks: Iterable[Block],
    note: Callable[[str], object],
    /,
) -> Generator[Done]:
    from tlkit_ray.actors import Size, compute
    from tlkit_ray.cluster import connected

    with connected(address):
        yield from compute(start, blocks, note, actors, Size(cpus, gpus))
