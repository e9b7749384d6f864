"""Whole runs on real photos: results, exactness, reuse, going on, bad input."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tlkit
from tlkit.errors import DataError, RecipeError, RunFolderError, StoreError, TlkitError, WeightsError
from tlkit.experiment.estimate import Estimate
from tlkit.experiment.observer import Observer, Run

Runner = Callable[..., Run]

RECIPE = """
name = "few"
seed = 3
goal = 0.5

[data]
source = "catsdogs"
root = "{photos}"
per_class = {{ train = 8, val = 3, test = 4 }}

[backbone]
{backbone}

[preprocess]
size = 64

[training]
epochs = 3
batch_size = 4
precision = "float32"
optimizer = {{ name = "sgd", lr = 1e-2, momentum = 0.9 }}

[[phase]]
name = "bottleneck"

[[phase]]
name = "fine-tune"
start_from = "bottleneck"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
"""

BACKBONES = {
    "plain": 'name = "vgg11"\nfeatures = "map"\nweights = "none"',
    "residual": 'name = "resnet18"\nweights = "none"',
    "transformer": (
        'name = "vit_tiny_patch16_224"\nweights = "none"\n'
        "model_args = { img_size = 64, depth = 3, drop_path_rate = 0.2 }"
    ),
}


@pytest.fixture
def run(few_photos: Path, tmp_path: Path) -> Runner:
    """Runs the recipe above, of a kind of backbone, into a numbered folder of its own."""

    def go(kind: str = "residual", text: str = RECIPE, **arguments: Any) -> Run:
        path = tmp_path / "recipe.toml"
        path.write_text(text.format(photos=few_photos, backbone=BACKBONES[kind]))
        arguments.setdefault("out", tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        return tlkit.run(path, **arguments)

    return go


def history(ended: Run, phase: str) -> list[dict[str, float]]:
    with (ended.folder / "phases" / phase / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def predictions(ended: Run, phase: str) -> list[tuple[str, ...]]:
    with (ended.folder / "phases" / phase / "predictions.csv").open() as file:
        return [
            tuple(row[key] for key in ("split", "id", "label", "predicted")) for row in csv.DictReader(file)
        ]


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    return {
        **results,
        "phases": [
            {key: value for key, value in row.items() if key != "seconds"} for row in results["phases"]
        ],
    }


def test_results_follow_the_schema(run: Runner) -> None:
    ended = run()
    results = json.loads((ended.folder / "results.json").read_text())
    assert results == ended.results
    assert list(results) == ["schema", "recipe", "classes", "goal", "goal_met", "data", "phases"]
    assert results["schema"] == 1
    assert results["classes"] == ["cat", "dog"]
    assert results["data"] == {"train": 16, "val": 6, "test": 8, "unlabelled": 0, "rejected": [], "about": ""}
    bottleneck, fine_tune = results["phases"]
    assert bottleneck["name"] == "bottleneck"
    assert bottleneck["epochs"] == 3
    assert 1 <= bottleneck["best_epoch"] <= 3
    assert bottleneck["parameters"] == {"learning": 512 * 2 + 2, "frozen": 11_176_512}
    assert bottleneck["features"] == {
        "kept": True,
        "computed": 22,
        "reused": 0,
        "bytes": 22 * 512 * 4,
        "why_not": None,
    }
    assert bottleneck["versus"] == []
    assert set(bottleneck["seconds"]) == {"total", "features", "training", "evaluation"}
    assert set(bottleneck["val"]) == {"n", "correct", "accuracy", "ci95", "log_loss"}
    assert set(bottleneck["test"]) == {*bottleneck["val"], "auroc", "ece", "confusion"}
    assert sum(map(sum, bottleneck["test"]["confusion"])) == bottleneck["test"]["n"] == 8
    (versus,) = fine_tune["versus"]
    assert versus["phase"] == "bottleneck"
    gained = fine_tune["test"]["correct"] - bottleneck["test"]["correct"]
    assert versus["gained"] - versus["lost"] == gained
    assert results["goal_met"] == (fine_tune["test"]["accuracy"] >= 0.5)


def test_the_run_folder_holds_what_it_should(run: Runner) -> None:
    ended = run()
    for name in ("recipe.toml", "run.json", "log.jsonl", "splits.csv"):
        assert (ended.folder / name).is_file()
    for phase in ("bottleneck", "fine-tune"):
        assert len(history(ended, phase)) == 3
        rows = predictions(ended, phase)
        assert [row[0] for row in rows] == ["val"] * 6 + ["test"] * 8
        folder = ended.folder / "phases" / phase
        assert {path.name for path in (folder / "model").iterdir()} == {"config.json", "model.safetensors"}
        assert not (folder / "resume").exists()
    events = [json.loads(line)["event"] for line in (ended.folder / "log.jsonl").read_text().splitlines()]
    assert events.count("epoch") == 6
    assert tlkit.read_recipe(ended.folder / "recipe.toml").phases == ended.recipe.phases


def test_splits_share_no_image(run: Runner) -> None:
    ended = run()
    with (ended.folder / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["sha256"] for row in rows}) == len(rows) == 30


@pytest.mark.parametrize("kind", BACKBONES)
def test_kept_features_change_nothing(kind: str, run: Runner) -> None:
    """Same losses in every epoch, same predictions, dropout and drop path included."""
    kept, whole = run(kind), run(kind, set={"features.keep": False})
    for phase in ("bottleneck", "fine-tune"):
        for one, other in zip(history(kept, phase), history(whole, phase), strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
            assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
        assert predictions(kept, phase) == predictions(whole, phase)
    assert kept.results["phases"][1]["features"]["kept"]
    assert whole.results["phases"][1]["features"]["why_not"] == "features.keep is false"
    assert whole.results["phases"][1]["features"]["computed"] == 0


def test_the_same_recipe_and_seed_give_the_same_results(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "flip": True, "views": 3}}
    first = run(set=options)
    monkeypatch.setenv("TLKIT_CACHE", str(first.folder / "other-cache"))
    second = run(set=options)
    assert timeless(first.results) == timeless(second.results)
    other = run(set={**options, "seed": 4})
    assert timeless(other.results) != timeless(first.results)


def test_another_head_rate_and_seed_reuse_every_feature(run: Runner) -> None:
    first = run()
    features = [phase["features"] for phase in first.results["phases"]]
    # one pass makes both phases' features: it counts for the first
    assert [(row["computed"], row["reused"]) for row in features] == [(22, 0), (0, 22)]
    again = run(set={"head": {"name": "mlp", "hidden": 8}, "phase.bottleneck.optimizer.lr": 0.1})
    for phase in again.results["phases"]:
        assert (phase["features"]["computed"], phase["features"]["reused"]) == (0, 22)


def test_views_take_turns_and_are_shared(run: Runner) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": 3}}
    first = run(set=options)
    # two more views of the training images; view 0 and validation came with the bottleneck's
    assert first.results["phases"][1]["features"]["computed"] == 16 * 2
    second = run(set={**options, "phase.fine-tune.optimizer.lr": 0.1})
    assert second.results["phases"][1]["features"]["reused"] == 16 * 3 + 6


def test_views_are_chosen_by_what_they_cost(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(epochs: int) -> int | str:
        auto = {"name": "affine", "rotation": 10, "views": "auto"}
        options = {"phase.fine-tune.augmentation": auto, "training.epochs": epochs}
        plan = run(set=options, plan_only=True).plan
        assert plan is not None
        return plan.phases[1].views

    assert chosen(8) == "fresh", "eight epochs draw as often as eight views are made"
    assert chosen(9) == 8
    monkeypatch.setenv("TLKIT_CACHE_LIMIT", "2MB")
    assert chosen(9) == "fresh", "eight views of 16 images take 2.1 MB"


def test_estimates_are_measured_and_change_nothing(run: Runner) -> None:
    class Curious(Observer):
        def __init__(self) -> None:
            self.seen: Mapping[str, Estimate] = {}

        def estimating(self, estimates: Callable[[], Mapping[str, Estimate]]) -> None:
            self.seen = estimates()

    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": 3}}
    first, second = Curious(), Curious()
    told = run(set=options, observer=first)
    assert told.results["phases"][0]["features"]["computed"] == 22, "nothing was kept while measuring"
    again = run(set={**options, "training.epochs": 30}, observer=second)
    untold = run(set=options)
    fine_tune = first.seen["fine-tune"]
    assert fine_tune.kept is not None and fine_tune.making > 0
    assert fine_tune.bytes == 3 * 16 * 256 * 4 * 4 * 4
    assert (fine_tune.keeps, fine_tune.views) == (True, 3)
    third = Curious()
    fresh = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": "fresh"}}
    run(set=fresh, observer=third, plan_only=True)
    instead = third.seen["fine-tune"]
    assert (instead.keeps, instead.views, instead.bytes) == (False, 8, 8 * 16 * 256 * 4 * 4 * 4)
    assert instead.kept is not None and instead.making > 0
    later = second.seen["fine-tune"]
    assert later.making == 0, "they are all there"
    assert later.kept is not None and 0 < later.kept < later.fresh
    assert again.results["phases"][1]["features"]["computed"] == 0
    for name in ("bottleneck", "fine-tune"):
        assert predictions(told, name) == predictions(untold, name)
        assert [row["train_loss"] for row in history(told, name)] == [
            row["train_loss"] for row in history(untold, name)
        ]


def test_fresh_views_are_never_kept(run: Runner) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": "fresh"}}
    features = run(set=options).results["phases"][1]["features"]
    assert not features["kept"]
    assert features["why_not"] == "views are drawn afresh each epoch"
    assert features["computed"] + features["reused"] == 6  # validation


def test_what_an_earlier_phase_changes_is_made_again(run: Runner) -> None:
    """A phase whose frozen part was trained before it cannot use the pretrained network's features."""
    text = RECIPE + '\n[[phase]]\nname = "head-again"\nstart_from = "fine-tune"\n'
    phases = run(text=text).results["phases"]
    assert phases[2]["features"]["computed"] == 22
    assert phases[2]["parameters"]["learning"] == 512 * 2 + 2


def test_a_finished_run_is_read_and_another_recipe_refused(run: Runner, tmp_path: Path) -> None:
    first = run(out=tmp_path / "out")
    written = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    assert run(out=tmp_path / "out").results == first.results
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == written
    with pytest.raises(RunFolderError, match="another recipe"):
        run(out=tmp_path / "out", set={"seed": 9})


def test_one_phase_after_the_other_is_the_whole(run: Runner, tmp_path: Path) -> None:
    whole = run()
    with pytest.raises(RunFolderError, match="starts from 'bottleneck'"):
        run(out=tmp_path / "parts", phases=["fine-tune"])
    first = run(out=tmp_path / "parts", phases=["bottleneck"])
    assert first.results["goal_met"] is None
    second = run(out=tmp_path / "parts", phases=["fine-tune"])
    for row in (*whole.results["phases"], *second.results["phases"]):
        row.pop("features")
    assert timeless(second.results) == timeless(whole.results)
    plans = [json.loads((each.folder / "plan.json").read_text()) for each in (whole, second)]
    assert plans[0] == plans[1]
    states = [[block["state"] for block in phase["blocks"]] for phase in plans[0]["phases"]]
    assert states == [["frozen"] * 5, ["frozen"] * 4 + ["learns"]]


def test_a_plan_writes_nothing(run: Runner, tmp_path: Path, cache: Path) -> None:
    ended = run(out=tmp_path / "out", plan_only=True)
    assert not (tmp_path / "out").exists()
    assert not cache.exists()
    assert ended.plan is not None
    bottleneck, fine_tune = ended.plan.phases
    assert bottleneck.frontier == "behind the backbone"
    assert fine_tune.frontier == "in front of layer4"
    assert fine_tune.feature_shapes == ((1, 256, 4, 4),)
    assert fine_tune.feature_bytes == (22 + 8) * 256 * 4 * 4 * 4


def test_a_phase_that_is_cut_short_goes_on_to_the_same_end(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlkit.training import loop

    whole = run()
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    class Stop(Exception):
        pass

    class Stopper(tlkit.Observer):
        def epoch_ended(self, phase: str, row: Any, epochs: int) -> None:
            if phase == "fine-tune" and row["epoch"] == 2:
                raise Stop

    with pytest.raises(Stop):
        run(out=tmp_path / "out", observer=Stopper())
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["phases"]) == 1
    ended = run(out=tmp_path / "out")
    assert [row["train_loss"] for row in history(ended, "fine-tune")] == [
        row["train_loss"] for row in history(whole, "fine-tune")
    ]
    assert predictions(ended, "fine-tune") == predictions(whole, "fine-tune")


def test_killed_while_extracting_only_the_missing_are_computed(
    few_photos: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(photos=few_photos, backbone=BACKBONES["residual"]))
    # a real process; shards are closed after every batch, and batches are small, so some are there to find
    code = (
        "import sys; from tlkit.features import store, extraction; "
        "store.SHARD_SECONDS = 0.0; extraction.BATCH = 2; "
        "import tlkit; tlkit.run(sys.argv[1], out=sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(recipe), str(tmp_path / "out")]
    environment = {**os.environ, "TLKIT_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while len(list(cache.rglob("*.safetensors"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (tmp_path / "out" / "results.json").exists():
        pytest.fail("the process had ended before it was killed")
    monkeypatch.setattr("tlkit.features.extraction.BATCH", 2)
    tlkit.run(recipe, out=tmp_path / "out")
    phases = json.loads((tmp_path / "out" / "results.json").read_text())["phases"]
    reused = sum(phase["features"]["reused"] for phase in phases)
    computed = sum(phase["features"]["computed"] for phase in phases)
    assert reused > 0
    assert computed + reused == 2 * 22


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"training.epoch": 3}, RecipeError, "did you mean 'epochs'"),
        ({"backbone.name": "resnet81"}, RecipeError, "did you mean 'resnet18'"),
        ({"training.batch_size": "many"}, RecipeError, "training.batch_size"),
        ({"data.root": "nowhere"}, RecipeError, "nowhere"),
        ({"data.per_class.train": 12}, DataError, "cat"),
        ({"phase.bottleneck.start_from": "fine-tune"}, RecipeError, "comes later"),
        ({"phase.fine-tune.freeze.blocks": 9}, RecipeError, "the backbone has 5: act1, layer1"),
        ({"head.name": "liner"}, RecipeError, "did you mean 'linear'"),
        ({"backbone.weight": "none"}, RecipeError, "weights"),
        ({"training.optimizer.name": "sgdd"}, RecipeError, "sgd"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_named_before_any_work(
    change: dict[str, Any], error: type[TlkitError], says: str, run: Runner, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says.replace(".", r"\.")):
        run(set=change, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_mistakes_are_said_at_once(run: Runner) -> None:
    changes = {
        "data.per_clas": 3,
        "data.root": "nowhere",
        "training.epochs": "many",
        "phase.bottleneck.augmentation": {"name": "affine", "rotatoin": 3},
        "phase.fine-tune.start_from": "botleneck",
        "phase.fine-tune.freeze.blocks": 9,
    }
    with pytest.raises(RecipeError) as caught:
        run(set=changes)
    found = sorted(caught.value.problems)
    assert len(found) == 6
    for problem, begins, says in zip(
        found,
        [
            "data.per_clas: ",
            "data.root: ",
            "phase.bottleneck.augmentation.rotatoin: ",
            "phase.fine-tune.freeze: ",
            "phase.fine-tune.start_from: ",
            "training.epochs: ",
        ],
        ["per_class", "nowhere", "rotation", "the backbone has 5", "bottleneck", "many"],
        strict=True,
    ):
        assert problem.startswith(begins)
        assert says in problem


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_text("this is not a photo"),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_an_unreadable_image_stops_the_run_unless_told_otherwise(
    kind: str, run: Runner, few_photos: Path, tmp_path: Path
) -> None:
    BAD_FILES[kind](few_photos / "cat.7.jpg")
    with pytest.raises(DataError, match=r"cat\.7\.jpg: "):
        run(out=tmp_path / "out")
    changes = {"data.on_unreadable": "skip", "data.per_class": {"train": 8, "val": 3, "test": 3}}
    rejected = run(set=changes).results["data"]["rejected"]
    assert [name for name, _ in rejected] == ["cat.7.jpg"]


def test_weights_of_another_network(run: Runner, weights: Path) -> None:
    with pytest.raises(RecipeError, match="another network's weights"):
        run(set={"backbone.weights": str(weights / "model.safetensors")})


def test_weights_out_of_reach_are_said_quickly(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    # a port that nobody listens on, so that the test is the same with and without a network
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", "/nonexistent")
    began = time.monotonic()
    with pytest.raises(RecipeError, match=r"--set backbone\.weights=PATH"):
        run(set={"backbone": {"name": "resnet18.a1_in1k"}})
    assert time.monotonic() - began < 10
    assert issubclass(WeightsError, TlkitError)


def test_a_run_folder_that_cannot_be_made(run: Runner, few_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        run(out=tmp_path / "file" / "out")
    with pytest.raises(RunFolderError, match="holds no run"):
        run(out=few_photos)


def test_features_that_cannot_be_written(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"features.keep=false"):
        run()


def test_a_root_that_the_source_needs_is_asked_for(run: Runner) -> None:
    with pytest.raises(RecipeError, match=r"data\.root: is missing: source 'catsdogs' needs the folder"):
        run(text=RECIPE.replace('root = "{photos}"\n', ""))
