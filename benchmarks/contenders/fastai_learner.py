"""fastai: ImageDataLoaders and a Learner, frozen up to its last group."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Learner,
    Normalize,
    OptimWrapper,
    Resize,
    ResizeMethod,
    accuracy,
    aug_transforms,
    imagenet_stats,
    params,
)
from torch import nn

from benchmarks.networks import network
from benchmarks.work import LAST_BLOCK, LR, MOMENTUM, Work, contend


class Clock(Callback):
    """Records the seconds of each epoch, validation included."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def before_epoch(self) -> None:
        self.began = time.perf_counter()

    def after_epoch(self) -> None:
        self.epochs.append(time.perf_counter() - self.began)


def groups(model: nn.Sequential) -> list[Any]:
    return [params(model[0][:LAST_BLOCK]), [*params(model[0][LAST_BLOCK:]), *params(model[1])]]


def main(work: Work) -> dict[str, Any]:
    augmentation = aug_transforms(size=work.size, min_scale=0.8) if work.augment else []
    data = ImageDataLoaders.from_folder(
        work.folder,
        train="train",
        valid="val",
        bs=work.batch,
        num_workers=work.workers,
        item_tfms=Resize(work.size, method=ResizeMethod.Squish),
        batch_tfms=[*augmentation, Normalize.from_stats(*imagenet_stats)],
    )
    clock = Clock()
    optimizer = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=MOMENTUM))
    learner = Learner(
        data,
        network(),
        loss_func=CrossEntropyLossFlat(),
        opt_func=optimizer,
        splitter=groups,
        metrics=accuracy,
    )
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit(work.epochs, LR, cbs=clock)
        test = data.test_dl(work.files("test"), with_labels=True)
        began = time.perf_counter()
        _, test_accuracy = learner.validate(dl=test)
    predict = time.perf_counter() - began
    return {"epochs": clock.epochs, "test_accuracy": test_accuracy, "predict": predict, "besides": predict}


if __name__ == "__main__":
    contend(main)
