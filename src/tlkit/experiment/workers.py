"""What all workers of engines share: how they are sent to another process, and what a lost one means."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import torch

from tlkit.errors import EngineError
from tlkit.runtime.devices import own_processors

#: How often in a row all workers may be lost before anything is computed.
ATTEMPTS = 3


class SentToWorkers:
    """A dataclass that makes a worker, and is sent to the process that the worker is made in."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Has versions compared before the rest is read, which another version may not be able to read."""
        values = tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return _receive, (own_versions(), type(self), pickle.dumps(values))


def own_versions() -> tuple[str, str]:
    """Returns the versions of tlkit and torch, on which features depend."""
    return version("tlkit"), torch.__version__


def _receive(versions: tuple[str, str], kind: type[SentToWorkers], values: bytes) -> SentToWorkers:
    """Returns what was pickled where these versions are installed.

    Raises:
        EngineError: this process has other versions.
    """
    if versions != own_versions():
        worker, sender = (
            f"tlkit {of_tlkit} and torch {of_torch}" for of_tlkit, of_torch in (own_versions(), versions)
        )
        raise EngineError(
            f"a worker has {worker}, and the computer that runs tlkit {sender}: install the same versions"
        )
    return kind(*pickle.loads(values))


@contextmanager
def own_process() -> Iterator[None]:
    """Restores what a worker in this process changes for itself: numbers of threads, and the cache folder."""
    cache = os.environ.get("TLKIT_CACHE")
    with own_processors():
        try:
            yield
        finally:
            if cache is None:
                os.environ.pop("TLKIT_CACHE", None)
            else:
                os.environ["TLKIT_CACHE"] = cache
