"""Compares classifiers from few images: `tlkit fit` beside scikit-learn, fastai and plain fine-tuning.

uv run --group bench python -m benchmarks.little_data --data ../shared
uv run python -m benchmarks.little_data --methods fit,fast,sklearn --per-class 5,10 --draws 3

All start from the same ImageNet weights of EfficientNet-Lite0 (the package that the plugin lite installs),
whose batch norms are as they were trained: libraries that train folded ones spoil the network.
All are tested on the same images, which none of them sees. Each method and draw has a process of its own, and
computes its features itself.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

ARCHITECTURE = "tf_efficientnet_lite0"
BATCH = 64
#: Epochs of fastai's fine_tune, after one with a frozen body, and the most of plain fine-tuning.
FASTAI_EPOCHS, PLAIN_EPOCHS, PATIENCE = 10, 20, 5

app = typer.Typer(add_completion=False)
Files = dict[str, list[Path]]
#: Trains on a folder per class with some weights; returns names of methods, with what predicts labels.
Method = Callable[[Path, str], Iterator[tuple[str, Callable[[list[Path]], list[str]]]]]


def write_weights(folder: Path) -> str:
    """Writes the weights as a folder that timm loads; returns it."""
    import timm
    from timm.models import save_for_hf
    from tlkit_lite.weights import load_installed

    network = timm.create_model(ARCHITECTURE)
    load_installed(network, "efficientnet-lite0")
    save_for_hf(network, folder, safe_serialization=True)
    return str(folder)


def list_images(data: Path, name: str) -> tuple[Files, Files]:
    """Returns training and test images of a data set, by class."""
    if name == "cats-dogs":
        folder = data / "catsdogs-photos" / "train"
        train = {
            kind: [folder / f"{kind}.{number}.jpg" for number in range(1, 1001)] for kind in ("cat", "dog")
        }
        test = {kind: [folder / f"{kind}.{number}.jpg" for number in range(4001, 4701)] for kind in train}
        return train, test
    splits: list[Files] = []
    for split in ("train", "test"):
        folders = sorted((data / "datasets" / name / split).iterdir())
        splits.append({folder.name: sorted(folder.iterdir()) for folder in folders})
    return splits[0], splits[1]


def fit(
    folder: Path, weights: str, quality: str = "best"
) -> Iterator[tuple[str, Callable[[list[Path]], list[str]]]]:
    """`tlkit fit`, from an empty cache."""
    import tlkit

    with tempfile.TemporaryDirectory() as out:
        os.environ["TLKIT_CACHE"] = f"{out}/cache"
        run = tlkit.fit(folder, backbone=f"local-dir:{weights}", quality=quality, out=f"{out}/run")  # type: ignore[arg-type]
        name = "tlkit fit" if quality == "best" else "tlkit fit --quality fast"
        # the others have no label for what belongs to no class either
        yield name, lambda files: tlkit.load(run.folder, unknown=False).predict(files).labels


def fast(folder: Path, weights: str) -> Iterator[tuple[str, Callable[[list[Path]], list[str]]]]:
    """`tlkit fit --quality fast`: the probe alone."""
    return fit(folder, weights, "fast")


def sklearn(folder: Path, weights: str) -> Iterator[tuple[str, Callable[[list[Path]], list[str]]]]:
    """scikit-learn's classifiers on timm's pooled features."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, Normalizer
    from sklearn.svm import SVC

    files = sorted(folder.rglob("*.jpg"))
    labels = [file.parent.name for file in files]
    features = pooled_features(files, weights)
    roots = FunctionTransformer(lambda values: np.sqrt(np.maximum(values, 0)))
    smallest = min(labels.count(label) for label in set(labels))
    known: list[NDArray[np.float32]] = []

    def of_test(test: list[Path]) -> NDArray[np.float32]:
        if not known:
            known.append(pooled_features(test, weights))
        return known[0]

    classifiers = {
        "LogisticRegression": LogisticRegression(C=1, max_iter=2000),
        "LogisticRegressionCV": LogisticRegressionCV(cv=min(5, smallest), max_iter=2000),
        "SVC on square roots": make_pipeline(roots, Normalizer(), SVC(C=10)),
    }
    for name, classifier in classifiers.items():
        classifier.fit(features, labels)
        yield name, lambda test, classifier=classifier: list(classifier.predict(of_test(test)))


def pooled_features(files: list[Path], weights: str) -> NDArray[np.float32]:
    """Computes timm's pooled features, ``(N, C)``."""
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    network = timm.create_model(f"local-dir:{weights}", pretrained=True, num_classes=0).eval()
    transform = create_transform(**resolve_data_config({}, model=network))
    batches = []
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            images = [transform(Image.open(file).convert("RGB")) for file in files[start : start + BATCH]]
            batches.append(network(torch.stack(images)).numpy())
    return np.concatenate(batches)


def fastai(folder: Path, weights: str) -> Iterator[tuple[str, Callable[[list[Path]], list[str]]]]:
    """fastai's fine_tune, as its guide does it."""
    import timm
    from fastai.vision.all import (
        CrossEntropyLossFlat,
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        default_split,
    )

    loaders = ImageDataLoaders.from_folder(
        folder,
        valid_pct=0.2,
        seed=1,
        item_tfms=Resize(256),
        batch_tfms=[*aug_transforms(size=224), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
        bs=min(32, max(4, len(list(folder.rglob("*.jpg"))) // 4)),
        num_workers=2,
    )
    network = timm.create_model(f"local-dir:{weights}", pretrained=True, num_classes=0)
    head = torch.nn.Linear(network.num_features, len(loaders.vocab))
    learner = Learner(
        loaders,
        torch.nn.Sequential(network, head),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
        splitter=default_split,
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(FASTAI_EPOCHS)

    def predict(test: list[Path]) -> list[str]:
        with learner.no_bar():
            scores, _ = learner.get_preds(dl=loaders.test_dl(test))
        return [loaders.vocab[int(index)] for index in scores.argmax(1)]

    yield "fastai fine_tune", predict


def whole(folder: Path, weights: str) -> Iterator[tuple[str, Callable[[list[Path]], list[str]]]]:
    """Fine-tuning of the whole timm network: AdamW, cosine, early stopping on a fifth of the images."""
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    torch.manual_seed(1)
    files = sorted(folder.rglob("*.jpg"))
    random.Random(1).shuffle(files)
    classes = sorted({file.parent.name for file in files})
    held_out = max(len(classes), len(files) // 5)
    network = timm.create_model(f"local-dir:{weights}", pretrained=True, num_classes=len(classes))
    config = resolve_data_config({}, model=network)
    training, plain = create_transform(**config, is_training=True), create_transform(**config)

    def read(chosen: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
        return torch.stack([transform(Image.open(file).convert("RGB")) for file in chosen])

    def predict(chosen: list[Path]) -> list[str]:
        network.eval()
        labels: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(chosen), BATCH):
                scores = network(read(chosen[start : start + BATCH], plain))
                labels += [classes[int(index)] for index in scores.argmax(1)]
        return labels

    val, train = files[:held_out], files[held_out:]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, PLAIN_EPOCHS)
    best, state, waited = -1.0, network.state_dict(), 0
    for _ in range(PLAIN_EPOCHS):
        network.train()
        random.shuffle(train)
        for start in range(0, len(train), 32):
            batch = train[start : start + 32]
            targets = torch.tensor([classes.index(file.parent.name) for file in batch])
            loss = torch.nn.functional.cross_entropy(network(read(batch, training)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        accuracy = mean(label == file.parent.name for label, file in zip(predict(val), val, strict=True))
        waited += 1
        if accuracy > best:
            best, waited = accuracy, 0
            state = {name: value.clone() for name, value in network.state_dict().items()}
        if waited == PATIENCE:
            break
    network.load_state_dict(state)
    yield "timm, whole network", predict


METHODS: dict[str, Method] = {"fit": fit, "fast": fast, "sklearn": sklearn, "fastai": fastai, "whole": whole}


@app.command(hidden=True)
def one(method: str, folder: Path, test: Path, weights: str) -> None:
    """Train with one method, and print a JSON object for each of its classifiers."""
    files = [Path(line) for line in test.read_text().splitlines()]
    began = time.perf_counter()
    for name, predict in METHODS[method](folder, weights):
        seconds = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        predicted = predict(files)
        accuracy = mean(
            label == file.parent.name or file.name.startswith(f"{label}.")
            for label, file in zip(predicted, files, strict=True)
        )
        typer.echo(json.dumps({"method": name, "accuracy": accuracy, "seconds": seconds, "memory": memory}))
        began = time.perf_counter() - seconds  # the next one shares the features


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="The folder of data sets and weights.")] = Path("../shared"),
    methods: str = ",".join(METHODS),
    datasets: str = "cats-dogs,waste,flowers",
    per_class: Annotated[str, typer.Option(help="Numbers of images per class; 0: all.")] = "5,10,25,100,0",
    draws: int = 5,
    out: Annotated[Path | None, typer.Option(help="A file to append each result to, as JSON.")] = None,
) -> None:
    """Print a table of accuracies, seconds and memory."""
    if context.invoked_subcommand:
        return
    with tempfile.TemporaryDirectory() as temporary:
        weights = write_weights(Path(temporary) / "weights")
        compare(data, methods.split(","), datasets.split(","), per_class, draws, out, weights)


def compare(
    data: Path,
    methods: list[str],
    datasets: list[str],
    per_class: str,
    draws: int,
    out: Path | None,
    weights: str,
) -> None:
    """Prints the table."""
    typer.echo("| data | per class | method | accuracy | standard error | seconds | MB |")
    typer.echo("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name in datasets:
        train, test = list_images(data.absolute(), name)
        for count in map(int, per_class.split(",")):
            results: dict[str, list[dict[str, float]]] = {}
            for draw in range(draws if count else 1):
                for result in measure(train, test, count, draw, methods, weights):
                    results.setdefault(str(result["method"]), []).append(result)  # type: ignore[arg-type]
                    if out is not None:
                        with out.open("a") as file:
                            file.write(
                                json.dumps({"data": name, "per_class": count, "draw": draw, **result}) + "\n"
                            )
            for method, rows in results.items():
                accuracies = [row["accuracy"] for row in rows]
                error = stdev(accuracies) / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
                cells = f"{mean(accuracies):.3f} | {error:.3f} | {mean(row['seconds'] for row in rows):.0f}"
                memory = mean(row["memory"] for row in rows) / 1e6
                typer.echo(f"| {name} | {count or 'all'} | {method} | {cells} | {memory:.0f} |")


def measure(
    train: Files, test: Files, count: int, draw: int, methods: list[str], weights: str
) -> Iterator[dict[str, float | str]]:
    """Yields what each method makes of one draw of training images."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, listing = Path(temporary) / "images", Path(temporary) / "test.txt"
        generator = random.Random(draw)
        for label, files in train.items():
            chosen = generator.sample(files, min(count or len(files), len(files)))
            (folder / label).mkdir(parents=True)
            for file in chosen:
                (folder / label / file.name).symlink_to(file)
        listing.write_text("\n".join(str(file) for files in test.values() for file in files))
        for method in methods:
            arguments = [method, str(folder), str(listing), weights]
            command = [sys.executable, "-m", "benchmarks.little_data", "one", *arguments]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                typer.echo(f"{method}: {process.stderr.strip().splitlines()[-1]}", err=True)
            for line in process.stdout.splitlines():
                if line.startswith("{"):
                    yield json.loads(line)


if __name__ == "__main__":
    app()
