"""Runs that are read again, or resumed where they were interrupted."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from processes import Started, execute
from small_runs import Runner, predictions, train_losses, write_recipe

import tlkit
from tlkit.errors import RunFolderError, TrainingError
from tlkit.recipe.recipe import Phase


class Stop(Exception):
    """Stands for whatever ends a process."""


class Stopper(tlkit.Observer):
    """Stops a run after the second epoch of fine-tuning."""

    @tlkit.hookimpl
    def tlkit_epoch_ended(self, phase: Phase, epoch: int) -> None:
        if phase.name == "fine-tune" and epoch == 2:
            raise Stop


def test_a_finished_run_is_read_and_another_recipe_refused(run: Runner, tmp_path: Path) -> None:
    first = run(out=tmp_path / "out")
    written = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    assert run(out=tmp_path / "out").results == first.results
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == written
    recipe = (tmp_path / "out" / "recipe.toml").read_text()
    for text in (recipe.replace("seed = 3", "seed = 9"), "", "no TOML", f"{recipe}\nmore = 1"):
        (tmp_path / "out" / "recipe.toml").write_text(text)
        with pytest.raises(RunFolderError, match="another recipe"):
            run(out=tmp_path / "out")
    # where it began on a cluster, it may go on without
    (tmp_path / "out" / "recipe.toml").write_text(f'{recipe}\n[compute]\nengine = "ray"\n')
    assert run(out=tmp_path / "out").results == first.results


def test_an_interrupted_phase_is_resumed_and_ends_as_if_it_had_not_been(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlkit.training import loop

    whole = run()
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    with pytest.raises(Stop):
        run(out=tmp_path / "out", observer=Stopper())
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["phases"]) == 1
    # as if the first two epochs had taken long
    log = tmp_path / "out" / "log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    events[-1]["time"] += 1000
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    ended = run(out=tmp_path / "out")
    seconds = [phase.seconds for phase in ended.results.phases]
    assert seconds[0].total < 1000 < seconds[1].training < seconds[1].total
    assert train_losses(ended, "fine-tune") == train_losses(whole, "fine-tune")
    assert predictions(ended, "fine-tune") == predictions(whole, "fine-tune")


def test_a_phase_whose_checkpoint_is_damaged_begins_again(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlkit.training import loop

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    class Notes(tlkit.Observer):
        texts: list[str]

        def __init__(self) -> None:
            self.texts = []

        def note(self, text: str) -> None:
            self.texts.append(text)

    whole = run()
    with pytest.raises(Stop):
        run(out=tmp_path / "out", observer=Stopper())
    (damaged,) = (tmp_path / "out").rglob("now.safetensors")
    with damaged.open("r+b") as file:
        file.truncate(1000)
    observer = Notes()
    ended = run(out=tmp_path / "out", observer=observer)
    (note,) = observer.texts
    assert note.startswith("phase 'fine-tune' starts again, because its checkpoint cannot be used: ")
    assert train_losses(ended, "fine-tune") == train_losses(whole, "fine-tune")
    assert predictions(ended, "fine-tune") == predictions(whole, "fine-tune")


def test_nothing_of_a_phase_whose_loss_is_not_finite_is_saved(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"phase 'fine-tune', epoch 1: the \w+ loss is (nan|inf): try"):
        run(out=tmp_path / "out", overrides={"phase.fine-tune.optimizer.lr": 1e30, "training.epochs": 1})
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [phase["name"] for phase in results["phases"]] == ["bottleneck"]
    assert not [path for path in (tmp_path / "out").rglob("*fine-tune*") if any(path.iterdir())]


def test_a_run_that_was_interrupted_after_its_last_phase_is_completed(run: Runner, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Stopper(tlkit.Observer):
        @tlkit.hookimpl
        def tlkit_phase_ended(self, phase: Phase) -> None:
            if phase.name == "fine-tune":
                raise Stop

    short = {"training.epochs": 1}
    with pytest.raises(Stop):
        run(out=tmp_path / "out", overrides=short, observer=Stopper())
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["phases"]) == 2
    ended = run(out=tmp_path / "out", overrides=short)
    assert ended.results.goal_met == (ended.results.phases[-1].test.accuracy >= 0.5)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["goal_met"] == ended.results.goal_met
    assert json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


def test_killed_while_extracting_only_the_missing_are_computed(
    few_photos: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos)
    # a real process; shards are closed after every batch, and batches are small, so some are there to find
    code = (
        "import sys; from tlkit.feature_store import executor, store; "
        "store.SHARD_SECONDS = 0.0; executor.BATCH = 2; "
        "import tlkit; tlkit.run(sys.argv[1], out=sys.argv[2])"
    )
    process = Started(execute, code, recipe, tmp_path / "out").process
    deadline = time.monotonic() + 300
    while len(list(cache.glob("features/**/*.safetensors"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.join()
    if (tmp_path / "out" / "results.json").exists():
        pytest.fail("the process had ended before it was killed")
    monkeypatch.setattr("tlkit.feature_store.executor.BATCH", 2)
    tlkit.run(recipe, out=tmp_path / "out")
    phases = json.loads((tmp_path / "out" / "results.json").read_text())["phases"]
    reused = sum(phase["features"]["reused"] for phase in phases)
    computed = sum(phase["features"]["computed"] for phase in phases)
    assert reused > 0
    assert computed + reused == 2 * 22
