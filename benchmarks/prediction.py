"""Measures how fast images are predicted, beside what decoding and the forward pass alone allow.

uv run python -m benchmarks.prediction ../shared/catsdogs-photos/train

All are measured in turn, several times. The limit is what a machine reaches that decodes all images with all
its processors, then runs the folded network on them: 1 / (1 / decoding + 1 / forward).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, get_args

import typer

BACKBONES = ("local-dir:../shared/weights/mobilenetv2_100", "efficientnet-lite0", "vgg16")
#: Images per turn; VGG16 takes long.
IMAGES, OF_VGG16 = 128, 32
Precision = Literal["float32", "bfloat16"]


@dataclass
class Rates:
    """Images per second, and per second of processor time, of each turn."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{median(self.wall):.0f} ({median(self.processor):.0f})"

    def measure(self, run: Callable[[], object], images: int) -> None:
        """Measures one turn."""
        began, used = time.perf_counter(), time.process_time()
        run()
        self.wall.append(images / (time.perf_counter() - began))
        self.processor.append(images / (time.process_time() - used))


def measure(backbone: str, precision: Precision, photos: Sequence[Path], turns: int) -> dict[str, Rates]:
    """Measures one network in one precision."""
    import numpy as np
    import torch

    from benchmarks.models import CLASSES, make_classifier
    from tlkit import Predictor
    from tlkit.data.loader import normalize
    from tlkit.inference.pixels import read_pixels
    from tlkit.model.folding import FoldedClassifier
    from tlkit.runtime.devices import choose_device, compute_config
    from tlkit.runtime.processors import reader_threads

    classifier, base = make_classifier(backbone)
    device = choose_device(None)
    predictor = Predictor(classifier, base.preprocess, CLASSES, precision=precision)
    compute = compute_config(device, precision)
    folded = FoldedClassifier(predictor.module, base.preprocess.size, compute)
    batch = [read_pixels(photo, base.preprocess) for photo in photos[: predictor.batch]]
    images = normalize(np.stack(batch), base.preprocess, device)

    def decode() -> None:
        with ThreadPoolExecutor(reader_threads()) as pool:
            pixels = list(pool.map(lambda photo: read_pixels(photo, base.preprocess), photos))
        for start in range(0, len(pixels), predictor.batch):
            normalize(np.stack(pixels[start : start + predictor.batch]), base.preprocess, device)

    def forward(network: Callable[[torch.Tensor], torch.Tensor], autocast: bool) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), ExitStack() as context:
                if autocast:
                    context.enter_context(compute.autocast())
                for _ in range(len(photos) // len(images)):
                    network(images).float().cpu()

        return run

    runs = {
        "decoding": decode,
        "forward, unfolded": forward(predictor.module, True),
        "forward, folded": forward(lambda images: folded.head(folded.features(images)), False),
        "predict": lambda: predictor.predict(photos),
    }
    rates = {name: Rates() for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            if turn == 0:
                run()  # warms up
            else:
                rates[name].measure(run, len(photos))
    return rates


def share(rates: dict[str, Rates], kind: Literal["wall", "processor"]) -> float:
    """Returns the median over the turns of what prediction reaches of the limit."""
    columns = (getattr(rates[name], kind) for name in ("decoding", "forward, folded", "predict"))
    return median(
        predicted * (1 / decoding + 1 / forward)
        for decoding, forward, predicted in zip(*columns, strict=True)
    )


def main(
    photos: Annotated[Path, typer.Argument(help="A folder of JPEGs.")],
    backbones: Annotated[list[str] | None, typer.Option("--backbone")] = None,
    turns: int = 5,
) -> None:
    """Print a table: images per second, and in brackets per second of processor time."""
    from tlkit.runtime.devices import choose_device, has_bfloat16
    from tlkit.runtime.process import keep_freed_memory

    keep_freed_memory()
    names = ("decoding", "forward, unfolded", "forward, folded", "predict")
    typer.echo(f"| | {' | '.join(names)} | of the limit |\n| --- |" + " ---: |" * (len(names) + 1))
    precisions = get_args(Precision) if has_bfloat16(choose_device(None)) else ("float32",)
    for backbone in backbones or BACKBONES:
        paths = sorted(photos.glob("*.jpg"))[: OF_VGG16 if backbone == "vgg16" else IMAGES]
        for precision in precisions:
            rates = measure(backbone, precision, paths, turns)
            cells = [
                f"{median(rates[name].wall):.0f} ({median(rates[name].processor):.0f})" for name in names
            ]
            of_limit = f"{share(rates, 'wall'):.0%} ({share(rates, 'processor'):.0%})"
            title = f"`{backbone.rpartition('/')[2]}`, {precision}"
            typer.echo(f"| {title} | {' | '.join(cells)} | {of_limit} |")


if __name__ == "__main__":
    typer.run(main)
