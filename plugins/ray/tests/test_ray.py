"""The engine `ray` on a real cluster of this computer."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import command
from small_runs import write_recipe
from stores import stored
from tlkit_ray import actors
from tlkit_ray.engine import ray_engine
from tlkit_ray.library import ray

import tlkit
from tlkit.experiment import worker_pass
from tlkit.testing import check_engine


@pytest.fixture(scope="module", autouse=True)
def two_processors() -> Iterator[None]:
    """A cluster of two processors."""
    folder = tempfile.mkdtemp(prefix="ray-")  # the paths of its sockets must be short
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder)


def make(
    behave: Callable[[int], object] = lambda block: None,
) -> Callable[[int | None], Callable[[int], Any]]:
    """Returns what makes a worker without torch, which does something with a block; sent by value."""

    def start(processors: int | None) -> Callable[[int], tuple[int, int, int | None]]:
        def work(block: int) -> tuple[int, int, int | None]:
            behave(block)
            return block, os.getpid(), processors

        return work

    return start


def test_actors_are_kept_and_blocks_taken_as_they_are_needed() -> None:
    taken: list[int] = []
    notes: list[str] = []

    def blocks() -> Iterator[int]:
        for block in range(50):
            taken.append(block)
            yield block

    results = ray_engine()(make(), blocks(), notes.append)
    done = [next(results)]
    assert len(taken) <= 5
    done += results
    assert sorted(block for block, _, _ in done) == list(range(50))
    assert {processors for _, _, processors in done} == {1}
    assert len({process for _, process, _ in done}) <= 2
    assert notes == ["Ray: 2 actors of 1 CPU each, on 1 computer"]
    assert not living()


def test_a_block_is_lost_with_its_actor_and_another_actor_goes_on() -> None:
    notes: list[str] = []

    def die(block: int) -> None:
        if block == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    done = list(ray_engine(actors=1, cpus=2)(make(die), iter(range(8)), notes.append))
    assert [block for block, _, _ in done] == [0, 1, 2, 4, 5, 6, 7]
    assert {processors for _, _, processors in done} == {2}
    assert len({process for _, process, _ in done}) == 2
    assert len(notes) == 2 and "an actor was lost" in notes[1]


def test_what_a_worker_raises_is_raised_as_it_is() -> None:
    def refuse(block: int) -> None:
        raise tlkit.DataError("photo.jpg is damaged") if block else tlkit.PluginError("a plugin")

    with pytest.raises(tlkit.PluginError, match=r"^a plugin$") as caught:
        list(ray_engine(actors=1)(make(refuse), iter([0]), print))
    assert type(caught.value) is tlkit.PluginError


def test_an_actor_that_fails_otherwise_is_an_error_that_says_why() -> None:
    def fail(block: int) -> None:
        raise MemoryError("full")

    with pytest.raises(tlkit.EngineError, match=r"^an actor failed as it computed 5 \(MemoryError: full\)$"):
        list(ray_engine(actors=1)(make(fail), iter([5]), print))
    with pytest.raises(tlkit.EngineError, match=r"not start \(ModuleNotFoundError: No.*: install the same"):
        list(ray_engine(actors=1)(Elsewhere(), iter([5]), print))


class Elsewhere:
    """Makes a worker by a module that actors do not have."""

    def __reduce__(self) -> tuple[object, ...]:
        return __import__, ("no_such_module",)

    def __call__(self, processors: int | None) -> Callable[[int], int]:
        raise AssertionError


def test_actors_that_always_die_end_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "LOSSES", 1)
    with pytest.raises(tlkit.EngineError, match=r"2 actors were lost in a row, .*; it computed 1$"):
        list(ray_engine(actors=1)(make(lambda block: os._exit(1)), iter(range(9)), print))


def test_more_than_any_computer_has() -> None:
    with pytest.raises(tlkit.EngineError, match=r"has 1 CPU and 1 GPU, .*2 CPUs\): lower"):
        next(ray_engine(gpus=1)(make(), iter([0]), print))
    with pytest.raises(tlkit.EngineError, match="has 3 CPUs, which an actor is to have"):
        next(ray_engine(cpus=3)(make(), iter([0]), print))


def test_what_is_closed_early_ends_its_actors() -> None:
    with closing(ray_engine(actors=1)(make(), iter(range(10**6)), print)) as results:
        next(results)
        assert living()
    assert not living()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "[::1]:1", "ray://127.0.0.1", "nowhere.invalid:6379", "localhost:port"]
)
def test_no_cluster_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        tlkit.EngineError, match=rf"no Ray cluster answers at '{re.escape(address)}' .*`ray start --head`"
    ):
        next(ray_engine(address=address)(make(), iter([0]), print))


def test_the_last_cluster_of_this_computer_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(tlkit.EngineError, match=r"answers at '127.0.0.1:1' .*`ray stop` forgets the last"):
        next(ray_engine()(make(), iter([0]), print))


def living() -> list[psutil.Process]:
    """Returns the processes of actors, once those that were ended are gone."""
    actors = [process for process in psutil.Process().children(recursive=True) if is_actor(process)]
    return psutil.wait_procs(actors, timeout=0 if len(actors) > 2 else 2)[1]


def is_actor(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] in (["ray::Worker"], ["ray::Worker.compute"], ["ray::Worker.start"])
    except psutil.Error:
        return False


class Killing(tlkit.Observer):
    """Kills an actor whenever some blocks are done."""

    def __init__(self, kills: int) -> None:
        self.notes: list[str] = []
        self._kills = kills

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        def tick(count: int) -> None:
            if self._kills and count and (actors := living()):
                self._kills -= 1
                actors[0].kill()

        yield tick if task == "frozen pass" else lambda _: None

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(
    ("count", "kills"), [(1, 0), pytest.param(2, 3, marks=pytest.mark.slow)], ids=["undisturbed", "killed"]
)
def test_actors_compute_the_bits_of_one_process(
    count: int,
    kills: int,
    few_photos: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_pass, "LARGEST_BLOCK", 2 if kills else 8)
    file, observer = write_recipe(tmp_path / "recipe.toml", few_photos), Killing(kills)
    engine = {"compute.engine": {"name": "ray", "actors": count}}
    done = tlkit.compute_features(file, overrides=engine, observer=observer)
    assert done.computed == 30
    lost = [note for note in observer.notes if "an actor was lost" in note]
    assert bool(lost) == bool(kills)

    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "one"))
    tlkit.compute_features(file)
    assert stored(cache) == stored(tmp_path / "one")


@pytest.mark.slow
def test_contract() -> None:
    check_engine("ray", actors=1)


def test_mistakes_in_a_recipe(few_photos: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "recipe.toml", few_photos)
    ended = command("features", file, "--engine", "ray", "--set", "compute.engine.cpu=2")
    assert ended.returncode == 2 and "compute.engine.cpu: is unknown (did you mean 'cpus'?)" in ended.stderr
    ended = command("run", file, "--plan", "--engine", "ray", "--set", "compute.engine.cpus=0")
    assert ended.returncode == 2 and "compute.engine.cpus: must be" in " ".join(ended.stderr.split())
