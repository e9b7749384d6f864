"""Trains the best classifier that labelled images allow: makes the choices, and shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tlkit.analysis.choose import FILE as CHOICE_FILE
from tlkit.analysis.choose import Choice, choose
from tlkit.analysis.images import TrainingImages, image_data
from tlkit.data.folds import TooManyFoldsError
from tlkit.errors import RecipeError
from tlkit.experiment.backbones import BACKBONE, choose_backbone
from tlkit.experiment.observer import Observer, Run
from tlkit.experiment.results import Results
from tlkit.experiment.runner import run
from tlkit.experiment.sources import make_source
from tlkit.fitting.recipe import FitOptions, FolderCounts, Quality, choose_recipe
from tlkit.parts.task import Task
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe
from tlkit.recipe.schema import DataSpec
from tlkit.runtime.distributed import process_state
from tlkit.utils.formatting import plural
from tlkit.utils.json_files import write_json
from tlkit.utils.sequences import as_list

#: The name that lets `choose` decide.
AUTO = "auto"
#: Fine-tuning is tried where there are this many images, and this share of them is not predicted correctly:
#: by judgement. Training the last block alone gained little: see "Fine-tuning" in benchmarks/RESULTS.md.
ENOUGH_IMAGES, ENOUGH_ERRORS = 300, 0.05
#: Without folds, so many validation images decide whether fine-tuning is better: by judgement.
ENOUGH_VALIDATION = 100
#: What is said where the same images choose the backbone and measure it.
OPTIMISM = (
    "the images that chose the backbone also measure it, so that its accuracy is slightly too good; images "
    "that are held out (--test 0.2) would not"
)


def fit(
    images: TrainingImages,
    labels: str | Iterable[object] | None = None,
    *,
    task: Task = "multiclass",
    separator: str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    quality: Quality = "best",
    folds: int | None = None,
    test: float | None = None,
    group: str | None = None,
    time_limit: float | None = None,
    epochs: int | None = None,
    seed: int = 1,
    track: str | Sequence[str] = (),
    out: Path | str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Run:
    """Trains a classifier on labelled images.

    A probe is fitted to cached features. Where there are images enough, and enough of the predictions are
    wrong, the whole network is fine-tuned from there; that is taken only if out-of-fold predictions say that
    it is better. The final model is trained on all images. Images that cannot be used are left out and listed
    in the results, under ``data.rejected``.

    Args:
        images: a folder per class, with or without train, val and test above them; a CSV file with columns
            `path` and `label`; files, Pillow images or uint8 arrays, in any mixture, with `labels`; a
            `torch.utils.data.Dataset` of images and labels; or a data set of the library ``datasets``. What
            is in no file is written to tlkit's cache folder.
        labels: the label of each of a list of images; where images may have several, a list of them for
            each, or one string with the separator between them.
        task: "multilabel": each image may have several labels, or none, and the probe is the classifier. A
            CSV file has the separator between the labels of an image, or a column of 0 and 1 for each class.
        separator: what is between the labels of an image in one string or cell; ``|`` unless given.
        backbone: any backbone's name, ``local-dir:…`` and ``hf-hub:…`` included, or "auto": the one that
            `tlkit.choose` chooses of those at hand; see `choose_backbone` unless given.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        quality: "best", or "fast" for the probe alone.
        folds: number of folds of the cross-validation. Unless it or `test` is given, there are folds for up
            to 5,000 images, and a held-out part for more.
        test: fraction of the images to hold out for testing, instead of a cross-validation.
        group: a regular expression; images whose names match alike, such as those of one patient or video,
            stay in one fold, so that none is predicted by a model that has seen others of its group.
        time_limit: seconds after which nothing more is tried; nor is fine-tuning that would take longer than
            what is left of them.
        epochs: number of epochs of fine-tuning, where it is tried; 10 unless given.
        seed: of folds, order, augmentation and new weights.
        track: trackers to send the run to: "tensorboard", "mlflow", "wandb"; none unless given.
        out: the run folder; ``runs/<name>/<number>`` unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: watches the run.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        The run; `tlkit.load(run.folder)` is the classifier, and ``recipe.toml`` in it the recipe.

    Raises:
        TlkitError: something in the images or the machine must be corrected first.
    """
    began = time.monotonic()
    registry, observer = registry or load_registry(), observer or Observer()
    trackers = tuple(dict.fromkeys(as_list(track)))
    options = FitOptions(
        weights=weights,
        quality=quality,
        folds=folds,
        test=test,
        epochs=epochs,
        seed=seed,
        task=task,
        group=group,
        trackers=trackers,
    )
    options.check()
    _check_combination(backbone, separator, options)
    data = image_data(images, labels, observer, task, separator)
    counts = FolderCounts.of(make_source(DataSpec(source=data.source, root=data.root), registry, task))

    choice: Choice | None = None
    if backbone == AUTO:
        # a recipe says which images are held out for testing
        candidates = choose_recipe(data, options, counts, BACKBONE)
        choice = _compare_backbones(candidates, counts, device, observer, registry)
        chosen = choice.best.backbone
    else:
        chosen = choose_backbone(backbone, weights, registry=registry, observer=observer)

    def run_with(options: FitOptions) -> Run:
        return run(
            choose_recipe(data, options, counts, chosen),
            out=out,
            device=device,
            observer=observer,
            registry=registry,
            skip=why_not_worth_trying,
            time_limit=None if time_limit is None else max(0.0, began + time_limit - time.monotonic()),
        )

    ended = _run_with_possible_folds(run_with, options, observer)
    if choice is not None and process_state().is_main_process:
        write_json(ended.folder / CHOICE_FILE, choice)  # the report shows it
    return ended


def _check_combination(backbone: str | None, separator: str | None, options: FitOptions) -> None:
    """Raises RecipeError if the backbone or the separator does not suit the options."""
    if backbone == AUTO and options.weights is not None:
        raise RecipeError(["weights belong to a backbone: name it instead of auto"], recipe="fit")
    if backbone == AUTO and options.task == "multilabel":
        raise RecipeError(["backbones are compared on one label per image: name one"], recipe="fit")
    if separator == "":
        raise RecipeError(["separator: must not be empty: say what is between the labels"], recipe="fit")
    if separator is not None and options.task != "multilabel":
        problem = "separator: is for several labels per image, with --task multilabel"
        raise RecipeError([problem], recipe="fit")


def _run_with_possible_folds(
    run_with: Callable[[FitOptions], Run], options: FitOptions, observer: Observer
) -> Run:
    """Runs with the options; with fewer folds where the images do not allow the number that tlkit chose."""
    try:
        return run_with(options)
    except TooManyFoldsError as error:
        # files with equal bytes, and files that cannot be used, are known after reading
        if options.folds is not None or error.most < 2:
            raise
        observer.note(f"{error.most} folds are drawn, since no class has more images that differ")
        return run_with(replace(options, folds=error.most))


def _compare_backbones(
    recipe: Recipe, counts: FolderCounts, device: str | None, observer: Observer, registry: Registry
) -> Choice:
    """Compares the backbones at hand on a recipe's images, and notes what this showed."""
    choice = choose(recipe, device=device, observer=observer, registry=registry)
    for candidate in choice.candidates:
        observer.note(candidate.describe())
    observer.note(choice.describe())
    is_cross_validated = recipe.data is not None and recipe.data.folds is not None
    if len(choice.candidates) > 1 and is_cross_validated and not counts.has_test:
        observer.note(OPTIMISM)
    return choice


def why_not_worth_trying(phase: Phase, results: Results) -> str | None:
    """Returns why fine-tuning is not worth its time, or None.

    Before there are results, the numbers of images tell.
    """
    data = results.data
    images = data.train + data.val
    if images < ENOUGH_IMAGES:
        return (
            f"{plural(images, 'image')} are too few to train the whole network, which takes {ENOUGH_IMAGES}"
        )
    if not data.folds and data.val < ENOUGH_VALIDATION:
        return (
            f"{plural(data.val, 'validation image')} are too few to decide, which takes {ENOUGH_VALIDATION}; "
            "with folds, all images decide"
        )
    probe = results.phases[-1] if results.phases else None
    scores = None if probe is None else probe.out_of_fold or probe.val
    if scores is None:
        return None
    errors = scores.n - scores.correct
    if errors < ENOUGH_ERRORS * scores.n:
        return f"{plural(errors, 'error')} on {scores.n:,} images leave too little to gain"
    return None
