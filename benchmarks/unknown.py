"""Measures how well photos that belong to none of a classifier's classes are told, on real photos.

uv run python -m benchmarks.unknown ../shared --cache /tmp/features

Strangers are photos of another data set, siblings those of one class that is left out of training. A probe's
highest probability is compared with `tlkit.model.unknown`: the part of unknown photos that pass (false
positives) where 95% of test photos of the known classes do, and at the threshold that is stored.
"""

from __future__ import annotations

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

from tlkit import Backbone, load_registry
from tlkit.builtin.probe import Probe
from tlkit.data.dataset import MAX_REPRESENTATIVES
from tlkit.data.images import read_image
from tlkit.data.loader import normalize
from tlkit.model.unknown import fit_detector

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
def show(photos: Photos, classes: NDArray[np.int64], unknown: Tensor, draw: int) -> Shown:
    """Trains on some classes of a data set, and shows the classifier its test photos and unknown ones."""
    chosen = np.isin(photos.labels, classes)
    train = np.random.default_rng(draw).permutation(np.flatnonzero(chosen & ~photos.test))
    labels = torch.from_numpy(np.searchsorted(classes, photos.labels[train]))
    known = photos.features[chosen & photos.test]
    probe = Probe(tuple(known.shape[1:]), len(classes), kernel=True).eval()
    probe.fit_features(photos.features[train], labels, torch.ones(len(labels)))
    detector = fit_detector(photos.features[train[:MAX_REPRESENTATIVES]])
    confidence = [probe(features).softmax(1).amax(1) for features in (known, unknown)]
    novelty = [detector(features) for features in (known, unknown)]
    return Shown(
        softmax=_false_positives(-confidence[0], -confidence[1]),
        novelty=_false_positives(novelty[0], novelty[1]),
        wrong_alarms=float((novelty[0] > detector.threshold).float().mean()),
        missed=float((novelty[1] <= detector.threshold).float().mean()),
    )


def _false_positives(known: Tensor, unknown: Tensor) -> float:
    """Returns the part of unknown photos whose score is at most that of `RECALL` of the known ones."""
    return float((unknown <= known.quantile(RECALL)).float().mean())


def main(
    shared: Annotated[Path, typer.Argument(help="The folder with the data sets and the weights.")],
    cache: Annotated[Path, typer.Option(help="Folder for the features.")],
    draws: Annotated[int, typer.Option(help="How often stored training photos are drawn.")] = 3,
) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    cache.mkdir(parents=True, exist_ok=True)
    sets = [Photos.read(name, shared, cache) for name in ("cats", "waste", "flowers")]
    typer.echo("| trained on | shown | softmax | novelty | wrong alarms | missed |")
    typer.echo("| --- | --- | ---: | ---: | ---: | ---: |")
    for photos in sets:
        classes = np.unique(photos.labels)
        cases = [
            (f"strangers: {other.name}", classes, other.features[other.test])
            for other in sets
            if other is not photos
        ]
        if len(classes) > 2:
            cases += [
                ("siblings", np.delete(classes, left_out), photos.features[photos.labels == left_out])
                for left_out in classes
            ]
        by_case: dict[str, list[Shown]] = {}
        for name, trained_on, unknown in cases:
            by_case.setdefault(name, []).extend(
                show(photos, trained_on, unknown, draw) for draw in range(draws)
            )
        for name, results in by_case.items():
            columns = ("softmax", "novelty", "wrong_alarms", "missed")
            means = [np.mean([getattr(result, column) for result in results]) for column in columns]
            cells = " | ".join(f"{mean:.4f}" for mean in means)
            typer.echo(f"| {photos.name} | {name} | {cells} |")


if __name__ == "__main__":
    typer.run(main)
