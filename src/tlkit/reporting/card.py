"""The model card of a run: README.md with metadata, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from tlkit.errors import ReportError, RunFolderError, close_matches
from tlkit.evaluation.metrics import Baselines
from tlkit.evaluation.multilabel import MultilabelScores
from tlkit.experiment.plan import DataSummary
from tlkit.experiment.record import RunRecord
from tlkit.experiment.results import PhaseResult, RunDescription
from tlkit.model.description import ModelDescription, read_config
from tlkit.reporting.render import render_text
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.hashing import file_sha256

FILE = "README.md"
#: The scheme of weights that a repository of the hub holds.
HUB = "hf-hub:"
#: A licence as the hub names it, such as apache-2.0; others are named beside "other".
LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
#: The most confused pairs of classes, and how many images make a class's scores worth little.
CONFUSIONS, FEW_IMAGES = 5, 20
#: A score for the hub: its type there, its name, its value, and its interval, or None.
ScoreRow = tuple[str, str, float, tuple[float, float] | None]


@dataclass(frozen=True)
class ClassRow:
    """A class in the card: its numbers of images, and its scores where they are defined."""

    name: str
    train: int
    measured: int
    recall: float | None
    precision: float | None
    average_precision: float | None = None


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
        metadata: YAML for the hub.
        name: the recipe's name.
        result: the result of the phase that trained the classifier.
        labels: its scores where an image may have several labels; None: it has one.
        model: what its model folder says of itself.
        data: how many images there were.
        splits_sha256: hash of splits.csv, which has the hash of every image; None: it is missing.
        classes: the classes.
        few: names of the classes that were measured on few images.
        confusions: the pairs of classes that are confused most: label, prediction, and number of images.
        baselines: accuracies without looking at the images; None where an image may have several labels.
        description: versions, machine and seed, or None.
        timm: whether timm can load the folder.
    """

    metadata: str
    name: str
    result: PhaseResult
    labels: MultilabelScores | None
    model: ModelDescription
    data: DataSummary
    splits_sha256: str | None
    classes: list[ClassRow]
    few: list[str]
    confusions: list[tuple[str, str, int]]
    baselines: Baselines | None
    description: RunDescription | None
    timm: bool


def card(run: Path | str, *, phase: str | None = None, out: Path | str | None = None) -> Path:
    """Writes a model card, ``README.md``, of a run's classifier.

    It says what the run knows: classes, numbers and hashes of the images, scores with their number of images,
    method and interval, calibration, limits, how to use the classifier, and source and licence of the weights
    that training started with. Its metadata are those that the Hugging Face hub reads.

    Args:
        run: the run folder.
        phase: the phase; the last unless given. If its weights were not taken, its classifier is that of the
            phase that it starts from, and so is the card.
        out: the folder to write it to, which is made; the run folder unless given.

    Returns:
        The file.

    Raises:
        RunFolderError: it is not a run folder, it has finished no such phase, or a file cannot be read.
        ReportError: the card cannot be written.
    """
    record = RunRecord(Path(run))
    text = render_text("card.md", make_card(record, phase))
    path = (record.folder if out is None else Path(out)) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def make_card(record: RunRecord, phase: str | None = None) -> Card:
    """Makes the content of the card of a run's last or named phase."""
    done = {item.name: item for item in record.done}
    if not done or record.results is None:
        raise RunFolderError(f"{record.folder}: this run has finished no phase yet")
    if phase is not None and phase not in done:
        hint = close_matches(phase, done) or f"; there are {', '.join(done)}"
        raise RunFolderError(f"{record.folder} has no finished phase {phase!r}{hint}")
    chosen = done[phase] if phase is not None else record.done[-1]
    result, splits = record.trained_by(chosen).result, record.folder / "splits.csv"
    assert result is not None  # it is done
    config = read_config(chosen.folder / "model")
    labels = result.multilabel.measured if result.multilabel else None
    confusions = result.measured.most_confused(CONFUSIONS) if labels is None else []
    classes = _class_rows(record.results.data, result, record.classes)
    return Card(
        metadata=_metadata(record, result, timm=config.architecture is not None),
        name=record.recipe.name,
        result=result,
        labels=labels,
        model=config.tlkit,
        data=record.results.data,
        splits_sha256=file_sha256(splits) if splits.is_file() else None,
        classes=classes,
        few=[row.name for row in classes if row.measured < FEW_IMAGES],
        confusions=[
            (record.classes[label], record.classes[predicted], count)
            for label, predicted, count in confusions
        ],
        baselines=record.results.baselines,
        description=record.description,
        timm=config.architecture is not None,
    )


def _metadata(record: RunRecord, result: PhaseResult, *, timm: bool) -> str:
    """Returns the card's metadata as YAML."""
    weights = result.weights
    source = weights.source if weights else ""
    license_name = (weights.license or "").lower() if weights else ""
    is_id = LICENSE_ID.fullmatch(license_name) is not None
    measured, data_spec = result.describe_measurement(), record.recipe.data
    assert data_spec is not None  # it has been run

    def score(metric: str, name: str, value: float, interval: tuple[float, float] | None) -> EvalResult:
        method = f"{measured}, 95% interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else measured
        return EvalResult(
            task_type="image-classification",
            dataset_type=data_spec.source.name,
            dataset_name=record.recipe.name,
            dataset_split=result.measured_on,
            metric_type=metric,
            metric_value=round(value, 4),
            metric_name=f"{name} ({method})",
        )

    data = ModelCardData(
        license=(license_name if is_id else "other") if license_name else None,
        license_name=license_name if license_name and not is_id else None,
        library_name="timm" if timm else "tlkit",
        pipeline_tag="image-classification",
        tags=["image-classification", "tlkit", *(["timm"] if timm else [])],
        base_model=source.removeprefix(HUB) if source.startswith(HUB) else None,
        model_name=record.recipe.name,
        eval_results=[score(*row) for row in _score_rows(result)],
    )
    return str(data.to_yaml())


def _score_rows(result: PhaseResult) -> list[ScoreRow]:
    """Returns the scores for the hub."""
    if result.multilabel is not None:
        labels = result.multilabel.measured
        precision, macro, micro = labels.mean_average_precision, labels.macro_f1, labels.micro_f1
        return [
            ("mean_average_precision", "mean average precision", precision.value, precision.ci95),
            ("f1", "macro F1", macro.value, macro.ci95),
            ("f1", "micro F1", micro.value, micro.ci95),
            ("log_loss", "log loss in nats", labels.log_loss, None),
        ]
    scores = result.measured
    return [
        ("accuracy", "accuracy", scores.accuracy, scores.ci95),
        ("balanced_accuracy", "balanced accuracy", scores.balanced_accuracy, None),
        ("f1", "macro F1", scores.macro_f1, None),
        ("log_loss", "log loss in nats", scores.log_loss, None),
        ("ece", "expected calibration error", scores.ece, scores.ece_ci95),
    ]


def _class_rows(data: DataSummary, result: PhaseResult, classes: tuple[str, ...]) -> list[ClassRow]:
    if result.multilabel is not None:
        of_classes = result.multilabel.measured.per_class
        return [
            ClassRow(
                name,
                data.per_class[name].train,
                scores.positives,
                scores.recall,
                scores.precision,
                scores.average_precision,
            )
            for name, scores in of_classes.items()
        ]
    confusion = result.measured.confusion_matrix(len(classes))
    counts = zip(
        confusion.sum(1).tolist(), confusion.sum(0).tolist(), confusion.diagonal().tolist(), strict=True
    )
    rows = []
    for name, (measured, predicted, correct) in zip(classes, counts, strict=True):
        recall = correct / measured if measured else None
        precision = correct / predicted if predicted else None
        rows.append(ClassRow(name, data.per_class[name].train, measured, recall, precision))
    return rows
