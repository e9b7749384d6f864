"""Measures how well photos that belong to none of a classifier's classes are told, on real photos.

uv run python -m benchmarks.unknown ../shared --cache /tmp/features

Strangers are photos of another data set, siblings those of one class that is left out of training. A probe's
highest probability is compared with `tlkit.model.unknown`: the part of unknown photos that pass (false
positives) where 95% of test photos of the known classes do, and at the threshold that is stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from tlkit import Backbone, Classifier, Predictor, load_registry
from tlkit.builtin.probe import Probe
from tlkit.data.dataset import MAX_REPRESENTATIVES
from tlkit.data.images import read_image
from tlkit.data.loader import normalize
from tlkit.model.unknown import UnknownDetector, fit_detector

RECALL = 0.95
BATCH = 64


@dataclass(frozen=True)
class Photos:
    """A data set's pooled features, the mean over each photo and its mirror image.

    Attributes:
        name: the data set's.
        features: ``(N, C)``.
        labels: ``(N,)``.
        test: which are test photos, ``(N,)``.
    """

    name: str
    features: Tensor
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]

    @staticmethod
    def read(name: str, shared: Path, cache: Path) -> Photos:
        """Reads features from the cache; computes them with mobilenetv2_100 where they are not there."""
        file = cache / f"{name}.npz"
        if not file.is_file():
            address = f"local-dir:{shared / 'weights/mobilenetv2_100'}"
            rows = list(_cats_and_dogs(shared) if name == "cats" else _folders(shared / "datasets" / name))
            backbone = load_registry().make("backbone", address, {"features": "pooled"})
            plain, mirrored = _compute([path for path, _, _ in rows], backbone)
            labels, test = zip(*((label, split == "test") for _, label, split in rows), strict=True)
            np.savez(file, f=plain, m=mirrored, y=labels, test=test)
        content = np.load(file)
        features = torch.from_numpy((content["f"] + content["m"]) / 2)
        return Photos(name, features, content["y"], content["test"])


@dataclass(frozen=True)
class Shown:
    """What a classifier makes of test photos of its classes, and of unknown ones; parts of 1.

    Attributes:
        softmax: unknown photos that pass where `RECALL` of the test photos do, by the highest probability.
        novelty: the same by novelty.
        wrong_alarms: test photos above the stored threshold.
        missed: unknown photos below it.
    """

    softmax: float
    novelty: float
    wrong_alarms: float
    missed: float


def _folders(folder: Path) -> Iterator[tuple[Path, int, str]]:
    for split in ("train", "test"):
        for label, name in enumerate(sorted(path.name for path in (folder / split).iterdir())):
            for path in sorted((folder / split / name).iterdir()):
                yield path, label, split


def _cats_and_dogs(shared: Path) -> Iterator[tuple[Path, int, str]]:
    for path in sorted((shared / "catsdogs-photos/train").iterdir()):
        kind, number, _ = path.name.split(".")
        yield path, int(kind == "dog"), "train" if int(number) <= 1000 else "test"


@torch.inference_mode()
def _compute(paths: list[Path], backbone: Backbone) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns pooled features of photos and of their mirror images."""
    plain, mirrored = [], []
    network = backbone.module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with ThreadPoolExecutor() as readers:
        for start in range(0, len(paths), BATCH):
            pixels = readers.map(lambda path: backbone.preprocess(read_image(path)), paths[start:][:BATCH])
            images = normalize(np.stack(list(pixels)), backbone.preprocess)
            plain.append(network(images).numpy())
            mirrored.append(network(images.flip(3)).numpy())
    return np.concatenate(plain), np.concatenate(mirrored)


@torch.no_grad()
def show(photos: Photos, classes: NDArray[np.int64], unknown: list[Tensor]) -> list[Shown]:
    """Trains on some classes of a data set, and shows their test photos and several sets of unknown ones."""
    chosen = np.isin(photos.labels, classes)
    train = np.random.default_rng(0).permutation(np.flatnonzero(chosen & ~photos.test))
    labels = torch.from_numpy(np.searchsorted(classes, photos.labels[train]))
    shown = [photos.features[chosen & photos.test], *unknown]
    probe = Probe((photos.features.shape[1],), len(classes), kernel=True).eval()
    probe.fit_features(photos.features[train], labels, torch.ones(len(labels)))
    detector = fit_detector(photos.features[train[:MAX_REPRESENTATIVES]])
    doubt = [-probe(features).softmax(1).amax(1) for features in shown]
    novelty = [detector(features) for features in shown]
    above = [float((values > detector.threshold).float().mean()) for values in novelty]
    return [
        Shown(
            softmax=_false_positives(doubt[0], doubt[index]),
            novelty=_false_positives(novelty[0], novelty[index]),
            wrong_alarms=above[0],
            missed=1 - above[index],
        )
        for index in range(1, len(shown))
    ]


def _false_positives(known: Tensor, unknown: Tensor) -> float:
    """Returns the part of unknown photos whose score is at most that of `RECALL` of the known ones."""
    return float((unknown <= known.quantile(RECALL)).float().mean())


def main(
    shared: Annotated[Path, typer.Argument(help="The folder with the data sets and the weights.")],
    cache: Annotated[Path, typer.Option(help="Folder for the features.")],
) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    cache.mkdir(parents=True, exist_ok=True)
    sets = [Photos.read(name, shared, cache) for name in ("cats", "waste", "flowers")]
    typer.echo("| trained on | shown | softmax | novelty | wrong alarms | missed |")
    typer.echo("| --- | --- | ---: | ---: | ---: | ---: |")
    for photos in sets:
        classes, others = np.unique(photos.labels), [other for other in sets if other is not photos]
        strangers = show(photos, classes, [other.features[other.test] for other in others])
        for other, result in zip(others, strangers, strict=True):
            _print_row(photos.name, f"strangers: {other.name}", [result])
        if len(classes) > 2:
            left_out = [(np.setdiff1d(classes, label), photos.labels == label) for label in classes]
            siblings = [show(photos, kept, [photos.features[sibling]])[0] for kept, sibling in left_out]
            _print_row(photos.name, f"siblings, mean of {len(classes)} classes", siblings)

    _print_latency(shared, fit_detector(sets[-1].features[:MAX_REPRESENTATIVES]))


def _print_latency(shared: Path, detector: UnknownDetector) -> None:
    """Prints the CPU time of predictions with the detector and without, reading the photos included."""
    backbone = load_registry().make("backbone", f"local-dir:{shared / 'weights/mobilenetv2_100'}", {})
    classifier = Classifier(backbone, Probe(backbone.feature_shape, 2, kernel=False))
    predictors = [
        Predictor(classifier, backbone.preprocess, ("a", "b"), unknown=unknown, device="cpu")
        for unknown in (None, detector)
    ]
    paths = [path for path, _, split in _folders(shared / "datasets/waste") if split == "test"]
    for size, repeats in ((1, 100), (32, 6)):
        seconds: list[list[float]] = [[], []]
        for number in range(repeats):
            for index in (0, 1) if number % 2 else (1, 0):
                began = time.process_time()
                predictors[index].predict(paths[number : number + size])
                seconds[index].append(time.process_time() - began)
        without, used = (1000 * float(np.median(values)) for values in seconds)
        typer.echo(f"{size} at a time: {without:.1f} ms, {used:.1f} ms with the detector")


def _print_row(name: str, shown: str, results: list[Shown]) -> None:
    columns = ("softmax", "novelty", "wrong_alarms", "missed")
    means = [np.mean([getattr(result, column) for result in results]) for column in columns]
    typer.echo(f"| {name} | {shown} | {' | '.join(f'{mean:.4f}' for mean in means)} |")


if __name__ == "__main__":
    typer.run(main)
