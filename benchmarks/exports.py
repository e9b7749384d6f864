"""Compares exported classifiers with `tlkit.load` on photos of mixed sizes: labels, probabilities and rates.

uv run python -m benchmarks.exports runs/pets runs/flowers --photos ../shared/datasets

Each runtime gets the decoded photos one by one, as uint8, with preprocessing in the graph. ``tlkit.load``
gets the same photos, and resizes them with Pillow. All compute in one thread, and take turns. Decoding is not
measured. OpenVINO is measured where it is installed.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL.Image import Image

import tlkit
from tlkit.data.image_paths import image_paths
from tlkit.data.images import read_image
from tlkit.inference.export_checks import validation_images
from tlkit.inference.export_onnx import export_onnx
from tlkit.inference.export_openvino import COMPILED_WITH, FILE, export_openvino
from tlkit.inference.exported import ANSWERS
from tlkit.inference.loading import find_model
from tlkit.inference.predictor import UNKNOWN

#: Photos that each runtime computes before it is the next one's turn.
TURN = 50
#: Maps photos to labels and probabilities.
Runtime = Callable[[list[Image]], tuple[list[str], NDArray[np.floating[Any]]]]


@dataclass
class Measured:
    """A runtime's answers and time."""

    labels: list[str] = field(default_factory=list)
    rows: list[NDArray[np.floating[Any]]] = field(default_factory=list)
    seconds: float = 0.0


def one_by_one(run: Callable[[NDArray[np.uint8]], list[NDArray[Any]]], classes: tuple[str, ...]) -> Runtime:
    """Returns the runtime of a graph that gives `ANSWERS`."""

    def compute(photos: list[Image]) -> tuple[list[str], NDArray[np.floating[Any]]]:
        labels, rows = [], []
        for photo in photos:
            answers = dict(zip(ANSWERS, run(np.asarray(photo)[None]), strict=False))
            labels.append(UNKNOWN if answers["unknown"][0] else classes[int(answers["label"][0])])
            rows.append(answers["probabilities"][0])
        return labels, np.stack(rows)

    return compute


def predict(predictor: tlkit.Predictor, photos: list[Image]) -> tuple[list[str], NDArray[np.floating[Any]]]:
    """Returns the answers of a predictor, which computes 32 photos together."""
    labels, rows = predictor.predict(photos)
    return labels, rows


def run_session(session: Any, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Returns the outputs of onnxruntime."""
    return list(session.run(None, {"images": pixels}))


def runtimes(model: Path, folder: Path) -> Iterator[tuple[str, Runtime]]:
    """Exports a model, and yields what computes it."""
    import onnxruntime

    predictor = tlkit.load(model, device="cpu")
    yield "tlkit.load", partial(predict, predictor)
    images, options = validation_images(model)[:64], onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for file, int8 in (("float32.onnx", False), ("int8.onnx", True)):
        export_onnx(model, folder / file, images, int8=int8)
        session = onnxruntime.InferenceSession(folder / file, options)
        yield f"onnxruntime, {file}", one_by_one(partial(run_session, session), predictor.classes)
        yield f"tlkit.load, {file}", partial(predict, tlkit.load(folder / file))
    if find_spec("openvino"):
        import openvino

        export_openvino(model, folder / "openvino", images)
        options = {**COMPILED_WITH, "INFERENCE_NUM_THREADS": 1}
        compiled = openvino.Core().compile_model(folder / "openvino" / FILE, "CPU", options)
        yield (
            "OpenVINO, float32",
            one_by_one(lambda pixels: list(compiled(pixels).values()), predictor.classes),
        )


def measure(model: Path, paths: list[Path]) -> None:
    """Prints a row per runtime."""
    with tempfile.TemporaryDirectory() as folder:
        every = dict(runtimes(model, Path(folder)))
        measured = {name: Measured() for name in every}
        sizes = set()
        for runtime in every.values():
            runtime([read_image(paths[0])])  # their first call takes longer
        for begin in range(0, len(paths), TURN):
            photos = [read_image(path) for path in paths[begin : begin + TURN]]
            sizes |= {photo.size for photo in photos}
            for name, runtime in every.items():
                started = time.perf_counter()
                labels, rows = runtime(photos)
                measured[name].seconds += time.perf_counter() - started
                measured[name].labels += labels
                measured[name].rows.append(rows)
    expected, *_ = measured.values()
    for name, result in measured.items():
        equal = sum(map(str.__eq__, expected.labels, result.labels))
        difference = np.abs(np.concatenate(expected.rows) - np.concatenate(result.rows)).max()
        unknown = result.labels.count(UNKNOWN)
        cells = [
            f"{equal:,} of {len(paths):,}",
            f"{difference:.1e}",
            f"{unknown:,}",
            f"{len(paths) / result.seconds:.0f}",
        ]
        typer.echo(
            f"| {model.parent.parent.parent.name}, {len(sizes)} sizes | {name} | {' | '.join(cells)} |"
        )


def main(
    models: Annotated[list[Path], typer.Argument(help="Model folders or run folders.")],
    photos: Annotated[list[str], typer.Option(help="Folders of photos.")],
    count: Annotated[int, typer.Option(help="How many photos, drawn at random.")] = 1000,
) -> None:
    """Print a table: equal labels, the largest difference of probabilities, unknown photos, the rate."""
    torch.set_num_threads(1)
    every = sorted(map(Path, image_paths(photos, ())))
    chosen = random.Random(1).sample(every, min(count, len(every)))
    typer.echo("| model | runtime | equal labels | probabilities | unknown | photos a second |")
    typer.echo("| --- | --- | ---: | ---: | ---: | ---: |")
    for model in models:
        measure(find_model(model), chosen)


if __name__ == "__main__":
    typer.run(main)
