"""Engines that are wrong on purpose: the contract finds each mistake."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Literal

import pytest

import tlkit
from tlkit.testing import engines, results

Mistake = Literal["none", "takes all", "twice", "describes", "goes on computing", "stops"]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The processes of workers, which are ended after the test."""
    monkeypatch.setattr(engines, "PATIENCE", 0.2)
    numbers: list[int] = []
    yield numbers
    for number in numbers:
        os.kill(number, signal.SIGKILL)


def compute(start: Callable[[int | None], Callable[[Any], Any]], connection: Connection) -> None:
    """Computes blocks in a worker's process."""
    work = start(None)
    while True:
        block = connection.recv()
        try:
            connection.send(work(block))
        except tlkit.TlkitError as error:
            connection.send(error)


def make_engine(mistake: Mistake, processes: list[int]) -> tlkit.Engine:
    """Makes an engine with one worker, in a process of its own."""
    forked = multiprocessing.get_context("fork")  # a process that imports torch anew takes seconds

    def engine(
        start: Callable[[int | None], Callable[[Any], Any]],
        blocks: Iterable[Any],
        note: Callable[[str], object],
        /,
    ) -> Generator[Any]:
        def add() -> tuple[multiprocessing.process.BaseProcess, Connection]:
            ours, theirs = forked.Pipe()
            process = forked.Process(target=compute, args=(start, theirs), daemon=True)
            process.start()
            theirs.close()
            return process, ours

        worker, connection = add()
        try:
            for block in list(blocks) if mistake == "takes all" else blocks:
                connection.send(block)
                try:
                    done = connection.recv()
                except EOFError:
                    if mistake == "stops":
                        return
                    worker, connection = add()
                    continue
                if isinstance(done, Exception):
                    raise RuntimeError(repr(done)) if mistake == "describes" else done
                yield from [done] * (2 if mistake == "twice" else 1)
        finally:
            if mistake == "goes on computing":
                assert worker.pid is not None
                processes.append(worker.pid)
            else:
                worker.kill()
                worker.join()

    return engine


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        ("none", None),
        ("takes all", "blocks are taken as they are needed"),
        ("twice", "every block is computed once"),
        ("describes", "errors reach the caller"),
        ("goes on computing", "closing ends the workers"),
        ("stops", "a lost worker is no error"),
    ],
)
def test_mistakes(mistake: Mistake, check: str | None, processes: list[int]) -> None:
    collected = list(results("engine", lambda: make_engine(mistake, processes)))
    outcomes = {result.check: result.outcome for result in collected}
    assert "not applicable" not in outcomes.values()
    failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
    assert (check in failed) if check else not failed
