"""The frozen pass in an engine's workers: the bits of one process, whatever is lost on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import command
from recipes import write_recipe as write_text
from small_runs import write_recipe
from stores import stored

import tlkit
from tlkit.experiment import worker_pass, workers
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.feature_store.store import FeatureStore
from tlkit.plugins.loader import BUILTIN, load_registry
from tlkit.recipe.recipe import Recipe
from tlkit.runtime.processors import reader_threads

REGISTRY = load_registry((*BUILTIN, "engine_parts"))
LOST = "blocks of images that were lost with their workers"
#: Three views of each training image, so that some features of a block may be there and others not.
VIEWS = {"phase.bottleneck.augmentation": {"name": "affine", "flip": True, "views": 3}}


class Watching(tlkit.Observer):
    """Counts what is done, and keeps what is said."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.notes: list[str] = []

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        def tick(count: int) -> None:
            self.done += count

        if task == "frozen pass":
            self.total = total
            yield tick
        else:
            yield lambda _: None

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divides thirty photos into several blocks."""
    monkeypatch.setattr(worker_pass, "LARGEST_BLOCK", 8)


def test_workers_compute_the_bits_of_one_process(
    few_photos: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, watching = write_recipe(tmp_path / "recipe.toml", few_photos), Watching()
    engine = {**VIEWS, "compute": {"engine": {"name": "pickling", "lost": 2, "unfinished": 2}}}
    done = tlkit.compute_features(file, overrides=engine, registry=REGISTRY, observer=watching)
    assert done.computed == done.views == watching.total == watching.done == 62
    assert watching.notes == [f"{LOST}: 4; computing the rest"]
    assert tlkit.compute_features(file, overrides=VIEWS).computed == 0

    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "one"))
    assert tlkit.compute_features(file, overrides=VIEWS).computed == 62
    assert stored(cache) == stored(tmp_path / "one")


def test_a_run_has_its_features_computed_by_the_engine(few_photos: Path, tmp_path: Path) -> None:
    file, watching = write_recipe(tmp_path / "recipe.toml", few_photos), Watching()
    engine = {"compute.engine": {"name": "pickling", "lost": 1}, "training.epochs": 1}
    run = tlkit.run(
        file,
        out=tmp_path / "run",
        overrides=engine,
        phases="bottleneck",
        registry=REGISTRY,
        observer=watching,
    )
    assert [phase.features.computed for phase in run.results.phases] == [22]
    assert f"{LOST}: 1; computing the rest" in watching.notes


def test_workers_that_are_always_lost_end_the_pass(few_photos: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "recipe.toml", few_photos)
    engine = {"compute.engine": {"name": "pickling", "lost": 99, "always": True}}
    with pytest.raises(
        tlkit.EngineError, match=r"30 image views are not computed: .* always lost. The first image is .*jpg"
    ):
        tlkit.compute_features(file, overrides=engine, registry=REGISTRY)


def test_an_engine_in_this_process_leaves_the_process_as_it_was(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the pass ends with an error: this one yields a block twice."""
    file = write_recipe(tmp_path / "recipe.toml", few_photos)
    before = torch.get_num_threads(), reader_threads()
    monkeypatch.setenv("TLKIT_CACHE", "cache")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tlkit.EngineError, match=r"the engine yields 0, which is no block that it has yet to"):
        tlkit.compute_features(file, overrides={"compute.engine": "repeating"}, registry=REGISTRY)
    assert (torch.get_num_threads(), reader_threads()) == before
    assert os.environ["TLKIT_CACHE"] == "cache"


def test_a_worker_with_other_versions_is_refused(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_recipe(tmp_path / "recipe.toml", few_photos)
    versions = iter([("0.1.0", "2.15.0"), ("0.1.0", "2.14.1"), ("0.1.0", "2.14.1")])
    monkeypatch.setattr(workers, "own_versions", lambda: next(versions))
    message = r"a worker has tlkit 0\.1\.0 and torch 2\.14\.1, and the computer .* 2\.15\.0: install the same"
    with pytest.raises(tlkit.EngineError, match=message):
        tlkit.compute_features(file, overrides={"compute.engine": "pickling"}, registry=REGISTRY)


def test_a_worker_with_another_store_is_refused(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_recipe(tmp_path / "recipe.toml", few_photos)
    elsewhere = tmp_path / "cache" / "features" / "leases" / "elsewhere.columns"
    monkeypatch.setattr(FeatureStore, "lease_file", elsewhere)
    with pytest.raises(tlkit.EngineError, match=r"a worker does not see the store .*TLKIT_CACHE"):
        tlkit.compute_features(file, overrides={"compute.engine": "pickling"}, registry=REGISTRY)


def test_a_worker_with_another_network_is_refused(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as other weights under the same path: here, other random ones."""
    file = write_recipe(tmp_path / "recipe.toml", few_photos)
    prepare = worker_pass.prepare_phases

    def other_weights(recipe: Recipe, *arguments: Any) -> list[PreparedPhase]:
        return prepare(replace(recipe, seed=recipe.seed + 1), *arguments)

    monkeypatch.setattr(worker_pass, "prepare_phases", other_weights)
    with pytest.raises(tlkit.EngineError, match="a worker would compute other features than this computer"):
        tlkit.compute_features(file, overrides={"compute.engine": "pickling"}, registry=REGISTRY)


def test_an_image_that_has_changed_stops_the_pass(few_photos: Path, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "recipe.toml", few_photos)

    class Damaging(Watching):
        @contextmanager
        def progress(
            self, task: str, total: int, unit: str, done: int = 0
        ) -> Iterator[Callable[[int], object]]:
            if task == "frozen pass":
                for photo in few_photos.iterdir():
                    photo.write_bytes(b"")
            with super().progress(task, total, unit, done) as tick:
                yield tick

    with pytest.raises(tlkit.DataError, match=r"\.jpg is not the file that it was|was readable"):
        tlkit.compute_features(
            file, overrides={"compute.engine": "pickling"}, registry=REGISTRY, observer=Damaging()
        )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("compute.engine=dask", "compute.engine.name: no engine is called 'dask'"),
        ("compute.engin=ray", "compute.engin: is unknown (did you mean 'engine'?)"),
        ("compute.engine.cpus=2", "compute.engine: needs a name"),
    ],
)
def test_mistakes(setting: str, message: str, tmp_path: Path, by_class: Path) -> None:
    recipe = write_text(
        tmp_path,
        f'name = "pets"\ndata = {{ source = "folder", root = "{by_class}" }}\n'
        'backbone = { name = "vgg16-quarter" }\n[[phase]]\nname = "probe"\n',
    )
    ended = command("features", recipe, "--set", setting)
    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.split())
