"""The report of a run: its result first, then everything behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tlkit.errors import TlkitError
from tlkit.evaluation.metrics import Baselines
from tlkit.experiment.observer import Observer, Run
from tlkit.experiment.record import PhaseRecord, RunRecord, SplitPredictions
from tlkit.experiment.results import PhaseResult, describe_gains, describe_gains_correction
from tlkit.experiment.tracking import track_report
from tlkit.inference.loading import load
from tlkit.inference.predictor import UNCLASSIFIED, Predictor
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.reporting import run_charts
from tlkit.reporting.choice_section import ChoiceSection, make_choice_section
from tlkit.reporting.curve_section import CurveSection, make_curve_section
from tlkit.reporting.data_section import DataSection, make_data_section, sample_photos
from tlkit.reporting.examples_section import ExampleGroup, make_examples_section, select_examples
from tlkit.reporting.layers_section import LayerSection, count_layer_pictures, make_layers
from tlkit.reporting.map_section import MapSection, make_map_section
from tlkit.reporting.missing import Missing, add_unfinished_phases
from tlkit.reporting.mistakes import Mistakes, make_mistakes
from tlkit.reporting.multilabel_section import MultilabelSection, make_multilabel_section
from tlkit.reporting.phases_section import PhasesSection, make_phases_section, view_photos
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.provenance_section import ProvenanceSection, make_provenance_section
from tlkit.reporting.render import render, replaced_when_complete
from tlkit.reporting.results_section import ResultsSection, make_results_section
from tlkit.reporting.run_images import RunImages
from tlkit.reporting.tuning_section import TuningSection, make_tuning_section


@dataclass(frozen=True)
class Report:
    """The content of report.html, from top to bottom.

    Attributes:
        name: the recipe's.
        final: the result of the phase that trained the classifier; None before any phase has ended.
        phase_results: results of the phases that have ended and were taken.
        not_taken: those of the phases whose weights were not taken.
        gains: descriptions of each phase's gains over earlier ones, by its name.
        correction: how their p-values were corrected; empty for a single one.
        baselines: accuracies without looking at the images, or None before the first phase has ended.
        goal: accuracy that the last phase must reach on the test images, or None.
        goal_met: whether it does; None while phases are missing.
        about: a sentence about the images that every reader should know, or nothing.
        missing: what the page cannot show, and why.
        accuracies: chart of all phases, or None before the first has ended.
        data: the images.
        phases: the phases.
        results: the classifier's predictions, or None without them.
        multilabel: the scores with several labels per image, in place of `accuracies` and `results`.
        choice: the comparison of backbones, or None if the recipe named its own.
        tuning: the search for the settings, or None if `tlkit tune` has not chosen them.
        curve: the learning curve, or None if `tlkit curve` has not measured it.
        examples: test images with predictions.
        mistakes: all mistakes by pair of classes, or None if there are none.
        map: where the training images lie by their features, or None if the model does not store any.
        layers: what layers respond to.
        provenance: what it takes to reproduce the run.
        unclassified: label of images below the threshold.
    """

    name: str
    final: PhaseResult | None
    phase_results: Sequence[PhaseResult]
    not_taken: Sequence[PhaseResult]
    gains: Mapping[str, Sequence[str]]
    correction: str
    baselines: Baselines | None
    goal: float | None
    goal_met: bool | None
    about: str
    missing: list[str]
    accuracies: Picture | None
    data: DataSection
    phases: PhasesSection
    results: ResultsSection | None
    multilabel: MultilabelSection | None
    choice: ChoiceSection | None
    tuning: TuningSection | None
    curve: CurveSection | None
    examples: list[ExampleGroup]
    mistakes: Mistakes | None
    map: MapSection | None
    layers: list[LayerSection]
    provenance: ProvenanceSection
    unclassified: str = UNCLASSIFIED


def report(
    run: Run | Path | str,
    *,
    observer: Observer | None = None,
    registry: Registry | None = None,
    device: str | None = None,
) -> Path:
    """Writes ``report.html`` and ``pictures/`` into a run folder.

    The report of a run that was interrupted shows what there is, and says what is missing.

    Args:
        run: what `tlkit.run` or `tlkit.fit` returned, or a run folder. Of the former, the page is sent to the
            recipe's trackers, too; a folder may be somebody else's, and must not reach the network.
        observer: watches.
        registry: the parts to choose from; all that is installed unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.

    Returns:
        The page.

    Raises:
        RunFolderError: it is not a run folder, or a file in it cannot be read.
        ReportError: the page cannot be written.
    """
    record = RunRecord(run.folder if isinstance(run, Run) else Path(run))
    observer = observer or Observer()
    page = record.folder / "report.html"
    with replaced_when_complete(page) as unfinished:
        content = make_report(record, unfinished.album, registry or load_registry(), device, observer)
        unfinished.file.write_text(render("report.html", content), encoding="utf-8")
    if isinstance(run, Run):
        track_report(run.recipe, run.folder, page, partial(_note_failed_tracker, observer))
    return page


def _note_failed_tracker(observer: Observer, name: str, problem: str) -> None:
    observer.note(f"the report was not sent to {name}: {problem}")


def make_report(
    record: RunRecord, album: Album, registry: Registry, device: str | None, observer: Observer
) -> Report:
    """Makes the content of a report, and its pictures; what cannot be made is listed as missing."""
    missing = Missing()
    # a phase that was not taken has the weights, and the scores, of the one that it starts from
    taken = [phase for phase in record.done if phase.result is not None and phase.result.is_taken]
    tests = {} if record.recipe.task == "multilabel" else _test_predictions(taken, missing)
    add_unfinished_phases(record, missing)
    results, data = [phase.result for phase in taken if phase.result is not None], record.data
    baselines = record.results.baselines if record.results and results else None
    final = record.final
    result = final.result if final else None
    with RunImages(record, registry, missing) as images:
        draw_samples = partial(sample_photos, record.images, images, album)
        samples = missing.attempt("training images", draw_samples) or []
        views = _draw_views(record, images, album, registry, missing)
        mistakes = None
        if final and final.name in tests:
            draw_mistakes = partial(make_mistakes, tests[final.name], record.classes, images, album)
            mistakes = missing.attempt("the mistakes", draw_mistakes)
        predictor = _load(final, registry, device, missing) if final else None
        examples: list[ExampleGroup] = []
        layers: list[LayerSection] = []
        feature_map = None
        if final and predictor:
            draw_map = partial(make_map_section, record.images, record.classes, predictor, images, album)
            feature_map = missing.attempt("the map of the training images", draw_map)
            examples, layers = _look_inside(final, predictor, tests, images, album, missing, observer)
    return Report(
        name=record.recipe.name,
        final=result,
        phase_results=results,
        not_taken=[ended for ended in record.phase_results if not ended.is_taken],
        gains=describe_gains(results),
        correction=describe_gains_correction(results),
        baselines=baselines,
        goal=record.recipe.goal,
        goal_met=record.results.goal_met if record.results else None,
        about=data.about if data else "",
        accuracies=(
            _draw_accuracies(results, record.recipe.goal, baselines.majority, album) if baselines else None
        ),
        data=make_data_section(record.images, record.classes, data, samples, album, record.recipe.task),
        phases=make_phases_section(record, views, album),
        results=_make_results(record, results, tests, album),
        multilabel=make_multilabel_section(result, results, record.recipe.goal, album),
        choice=missing.attempt(
            "the comparison of backbones", partial(make_choice_section, record.folder, album)
        ),
        tuning=missing.attempt("the search for settings", partial(make_tuning_section, record.folder, album)),
        curve=missing.attempt("the learning curve", partial(make_curve_section, record.folder, album)),
        examples=examples,
        mistakes=mistakes,
        map=feature_map,
        layers=layers,
        provenance=make_provenance_section(record, registry),
        missing=missing.reasons,
    )


def _make_results(
    record: RunRecord, results: Sequence[PhaseResult], tests: Mapping[str, SplitPredictions], album: Album
) -> ResultsSection | None:
    """Makes the section of the classifier's predictions; returns None without them."""
    final = record.final
    if final is None or final.result is None or final.name not in tests:
        return None
    unlabelled, threshold = final.predictions.get("unlabelled"), record.recipe.reject_below
    return make_results_section(final.result, results, tests, unlabelled, record.classes, threshold, album)


def _look_inside(
    final: PhaseRecord,
    predictor: Predictor,
    tests: Mapping[str, SplitPredictions],
    images: RunImages,
    album: Album,
    missing: Missing,
    observer: Observer,
) -> tuple[list[ExampleGroup], list[LayerSection]]:
    """Makes the examples with their heat maps, and pictures of what the layers respond to."""
    selections = select_examples(final.name, tests) if final.name in tests else []
    total = sum(len(selection.indices) for selection in selections) + count_layer_pictures(predictor)
    examples: list[ExampleGroup] = []
    with observer.progress("drawing examples", total, "pictures") as tick:
        if final.name in tests:
            out_of_fold = "test" not in final.predictions
            examples = make_examples_section(
                selections,
                tests[final.name],
                predictor,
                images,
                album,
                missing,
                tick,
                out_of_fold=out_of_fold,
            )
        draw_layers = partial(make_layers, predictor, album, tick)
        layers = missing.attempt("what the layers respond to", draw_layers) or []
    return examples, layers


def _test_predictions(phases: Sequence[PhaseRecord], missing: Missing) -> dict[str, SplitPredictions]:
    tests = {}
    for phase in phases:
        if (predictions := phase.measured) is not None:
            tests[phase.name] = predictions
        else:
            missing.add(f"The predictions of phase {phase.name} are missing.")
    return tests


def _draw_accuracies(
    results: Sequence[PhaseResult], goal: float | None, majority: float, album: Album
) -> Picture:
    tests = {result.name: result.measured for result in results}
    scores = ", ".join(f"{name} {test.accuracy:.3f}" for name, test in tests.items())
    draw = partial(run_charts.accuracies, tests=tests, goal=goal, majority=majority)
    height = 1.3 + 0.45 * len(results)
    return album.chart("accuracies", f"Accuracy on {results[-1].measured_on}: {scores}", draw, height=height)


def _draw_views(
    record: RunRecord, images: RunImages, album: Album, registry: Registry, missing: Missing
) -> dict[str, list[Picture]]:
    """Makes pictures of the views of the last phase, and of every other phase that augments images."""
    pictures = {}
    for phase in record.done:
        if phase is record.done[-1] or phase.phase.augmentation.name != "none":
            draw = partial(view_photos, record.recipe, phase, images, album, registry)
            pictures[phase.name] = missing.attempt(f"views of phase {phase.name}", draw) or []
    return pictures


def _load(phase: PhaseRecord, registry: Registry, device: str | None, missing: Missing) -> Predictor | None:
    try:
        return load(phase.folder / "model", device=device, registry=registry)
    except TlkitError as error:
        missing.add(f"The model of phase {phase.name} cannot be loaded: {error}")
        return None
