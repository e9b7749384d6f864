"""Searches for settings: what is tried, how it is measured, what is reported, and how a search goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from small_training import LOSS
from torch import nn

import tlkit
from tlkit.analysis import trials as trials_module
from tlkit.analysis.head_folds import FoldedFeatures, out_of_fold_logits
from tlkit.analysis.range_test import range_test
from tlkit.analysis.search_space import SearchSpace, read_space
from tlkit.analysis.selection_bias import corrected_accuracy
from tlkit.analysis.tune import _open_search, read_tuning
from tlkit.builtin.head_modules import Mlp, Prototypes
from tlkit.cli.app import main
from tlkit.errors import RecipeError, RunFolderError
from tlkit.recipe.schema import PartSpec, TrainingSpec
from tlkit.reporting.pictures import Album
from tlkit.reporting.tuning_section import make_tuning_section
from tlkit.utils.hashing import seed

RECIPE = """
name = "pets"
data = {{ source = "folder", root = "{photos}" }}
backbone = {{ name = "test_resnet", weights = "none" }}
preprocess = {{ size = 64 }}
training = {{ epochs = 3, optimizer = {{ name = "sgd", lr = 0.1 }} }}

[[phase]]
name = "head"

[[phase]]
name = "fine-tune"
start_from = "head"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
"""
SPACE = ["head.name=linear,prototype", "head.dropout=0:0.8", "training.optimizer.lr=1e-3:1:log"]


@pytest.fixture
def recipe(by_class: Path, tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.format(photos=by_class))
    return file


def folded(count: int = 60, seed: int = 0) -> FoldedFeatures:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    values = 0.7 * np.eye(8)[labels] + generator.normal(size=(count, 8))
    folds = np.arange(count) * 4 // count
    return FoldedFeatures((torch.from_numpy(values).float(),), labels, folds, 4, 3, seed)


def head() -> Mlp:
    torch.manual_seed(0)
    return Mlp((8,), 3, hidden=None, dropout=0.0, pool="average")


def test_the_folds_that_are_trained_together_are_those_that_are_trained_one_by_one() -> None:
    data, optimizer = (
        folded(),
        PartSpec(name="momentum", options={"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}),
    )
    training = TrainingSpec(epochs=3, batch_size=15, keep="last", optimizer=optimizer)
    together = out_of_fold_logits(head(), data, training, LOSS)
    labels = torch.from_numpy(data.labels)
    for fold in range(4):
        one, seen = head(), torch.from_numpy(data.folds != fold)
        for epoch in range(3):
            order = np.random.default_rng(seed(data.seed, epoch, "order")).permutation(60)
            for batch in torch.from_numpy(order).tensor_split(3):
                batch = batch[seen[batch]]
                loss = nn.functional.cross_entropy(one(data.views[0][batch]), labels[batch])
                one.zero_grad()
                loss.backward()
                with torch.no_grad():
                    for value in one.parameters():
                        value -= 0.1 * value.grad
        expected = one(data.views[0][~seen]).detach().numpy()
        assert together[data.folds == fold] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("make", [head, lambda: Prototypes((8,), 3)])
def test_no_image_is_predicted_by_a_head_that_saw_its_label(make) -> None:
    data = folded()
    training = TrainingSpec(epochs=4, batch_size=8, patience=2)
    before = out_of_fold_logits(make(), data, training, LOSS)
    labels = np.where(data.folds == 2, 2 - data.labels, data.labels)
    changed = FoldedFeatures(data.views, labels, data.folds, 4, 3, 0)
    after = out_of_fold_logits(make(), changed, training, LOSS)
    assert (after[data.folds == 2] == before[data.folds == 2]).all()
    assert (after[data.folds == 0] != before[data.folds == 0]).any()


def test_a_range_test_finds_rates_that_train_and_rates_that_diverge() -> None:
    network, data = head(), folded()
    before = network.fc.weight.detach().clone()
    optimizer = PartSpec(name="sgd", options={"lr": 1.0, "momentum": 0.9})
    tried = range_test(network, data, TrainingSpec(epochs=1, batch_size=15, optimizer=optimizer), LOSS)
    assert (network.fc.weight == before).all()
    losses = dict(zip(tried.rates, tried.losses, strict=True))
    best = min(losses, key=losses.get)
    assert tried.rates[0] == 1e-6 and 1e-2 < best < 3
    assert losses[best] < 0.8 * losses[tried.rates[0]]
    assert tried.losses[-1] > 1.5 * losses[best]
    assert (
        range_test(network, data, TrainingSpec(epochs=1, batch_size=15, optimizer=optimizer), LOSS) == tried
    )


def test_the_best_of_many_guesses_is_expected_to_guess() -> None:
    generator = np.random.default_rng(0)
    expected = []
    for _ in range(10):
        correct = generator.random((100, 300)) < 0.5
        assert correct.mean(1).max() > 0.55
        expected.append(corrected_accuracy(correct * 1.0, correct, np.ones(300), 0))
    assert np.mean(expected) == pytest.approx(0.5, abs=0.02)
    # where one is far better, nothing is taken off
    correct[7] = generator.random(300) < 0.9
    assert corrected_accuracy(correct * 1.0, correct, np.ones(300), 0) == pytest.approx(
        correct[7].mean(), abs=0.005
    )


def test_a_search_that_is_cut_short_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    tried: list[dict[str, object]] = []
    cross_validate = trials_module.Trials._cross_validate

    def interrupted(self, number, settings):
        tried.append(settings)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return cross_validate(self, number, settings)

    monkeypatch.setattr(trials_module.Trials, "_cross_validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tlkit.tune(recipe, space=SPACE, trials=6, out=out)
    assert read_tuning(out) is None and not (out / "recipe.toml").exists()
    # what a process leaves that is killed while it writes
    (out / "tuning" / "optuna.journal.lock").symlink_to("out/tuning/optuna.journal")
    tuning = tlkit.tune(recipe, space=SPACE, trials=6, out=out)
    numbers = [trial.number for trial in tuning.trials]
    cut = next(number for number in range(7) if number not in numbers)
    assert len(numbers) == 6 and tuning.failed == 0
    # what was cut short was tried again first, and nothing that had ended
    assert tried[3] == tried[2] == tuning.trials[cut].settings
    assert read_tuning(out) == tuning
    # more trials replace the recipe of fewer
    tuned = (out / "recipe.toml").read_text()
    (out / "recipe.toml").write_text("name = 'of fewer trials'")
    assert tlkit.tune(recipe, space=SPACE, trials=6, out=out) == tuning
    assert (out / "recipe.toml").read_text() == tuned


def test_the_command_writes_a_recipe_that_runs_with_the_best_settings(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    space = [argument for choice in SPACE for argument in ("--space", choice)]
    command = ["tlkit", "tune", str(recipe), "--trials", "5", *space, "--out", str(out)]
    with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    tuning = read_tuning(out)
    assert tuning is not None and (out / "tuning.svg").is_file()
    assert "Expect an accuracy of " + f"{tuning.accuracy:.3f}" in capsys.readouterr().out
    assert tuning.images == 68 and tuning.folds == 5  # 80 without the test images
    best = tuning.best_trial
    assert best.accuracy == max(trial.accuracy for trial in tuning.trials)
    for trial in tuning.trials:
        assert set(trial.settings) == {"head.name"} | (
            {"head.dropout", "training.optimizer.lr"} if trial.settings["head.name"] == "linear" else set()
        )
    tuned = tlkit.read_recipe(out)
    assert tuned.phase("head").head.name == best.settings["head.name"]
    assert tuned.phase("fine-tune").head == tuned.phase("head").head
    ended_run = tlkit.run(out, out=out, phases=["head"])
    assert ended_run.folder == out and ended_run.results.phases[0].test is not None
    section = make_tuning_section(out, Album(tmp_path))
    assert section is not None and section.tuning == tuning
    fits_itself = best.settings["head.name"] == "prototype"
    assert (tuning.range_test is None) == (section.range_test is None) == fits_itself
    assert (out / "learning-rates.svg").is_file() != fits_itself


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ([], "is missing: say what to choose from"),
        (["head.dropout"], "needs at least two different values"),
        (["head.dropout=0.5:0.1"], "is not a range"),
        (["head.dropout=0:0.8:log"], "begins above 0"),
        (["backbone.name=resnet18,resnet50"], "only keys of the head and of training"),
        (["head.dropout=0:0.5", "head.dropout=0:0.8"], "appears twice"),
    ],
)
def test_mistakes_in_the_space(space: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        read_space(space)


def test_mistakes_that_the_recipe_shows(recipe: Path, tmp_path: Path) -> None:
    read = tlkit.read_recipe(recipe)
    phase, registry = read.phase("head"), tlkit.load_registry()
    with pytest.raises(RecipeError, match=r"has no such option \(did you mean 'head.dropout'"):
        SearchSpace(read, phase, read_space(["head.dropuot=0:0.8"]), registry, set())
    space = ["training.epoch=1,9", "training.optimizer.lr=low,high", "head.dropout=a,b"]
    with pytest.raises(RecipeError) as error:
        tlkit.tune(read, space=space, out=tmp_path / "out")
    text = str(error.value)
    assert "--space training.epoch=1: phase.head.epoch: is unknown (did you mean 'epochs'" in text
    assert "--space training.optimizer.lr=low: phase.head.optimizer.lr: must be a number" in text
    assert "--space head.dropout=a: phase.head.head.dropout: " in text
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_else(recipe: Path, tmp_path: Path) -> None:
    read, space = tlkit.read_recipe(recipe), read_space(SPACE)
    _open_search(tmp_path / "out", read, read.phase("head"), space).release()
    with pytest.raises(RunFolderError, match="another recipe or space"):
        _open_search(tmp_path / "out", read, read.phase("head"), read_space(SPACE[:1]))
    with pytest.raises(RunFolderError, match="something other than a search"):
        _open_search(recipe.parent, read, read.phase("head"), space)
    with (
        _open_search(tmp_path / "out", read, read.phase("head"), space),
        pytest.raises(RunFolderError, match="in use by another tlkit"),
    ):
        _open_search(tmp_path / "out", read, read.phase("head"), space)


def test_phases_that_cannot_be_tuned(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"phase\.fine-tune\.freeze: only the head can be tuned"):
        tlkit.tune(recipe, space=SPACE, phase="fine-tune")
    overrides = {"phase.head.augmentation": "standard", "training.mixup": 0.2}
    with pytest.raises(RecipeError) as error:
        tlkit.tune(recipe, space=SPACE, phase="head", overrides=overrides)
    assert len(error.value.problems) == 2


def test_values_in_a_space_may_be_written_in_python() -> None:
    space = read_space({"head.name": ["linear", "mlp"], "head.hidden": "16:64:log", "head.pool": "a,b"})
    assert space["head.name"].values == ("linear", "mlp")
    assert space["head.hidden"].values == (16, 64) and space["head.hidden"].log
    with pytest.raises(
        RecipeError, match=r"\(0.0, 0.8\) may be a range or values: write '0.0:0.8', or a list"
    ):
        read_space({"head.dropout": (0.0, 0.8)})
