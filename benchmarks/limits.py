"""Measures the limit of the arithmetic: the same forward pass and step on tensors that are in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.work import DROPOUT, HIDDEN, LR, MOMENTUM, Work, contend
from tlkit import load_registry
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.freezing import freeze
from tlkit.model.partition import partition
from tlkit.runtime.devices import choose_device, compute_config, gpu_settings
from tlkit.runtime.process import keep_freed_memory

#: Number of runs that are discarded, and of runs whose median is taken.
WARM_UP, RUNS = 2, 7
DEVICE = choose_device(None)


def seconds(run: Callable[[], object]) -> float:
    """Returns the median duration of a call."""
    times = []
    for number in range(WARM_UP + RUNS):
        began = time.perf_counter()
        run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Returns the speed of a large matrix product, in GFLOP/s."""
    first, second = (torch.randn(size, size, dtype=dtype, device=DEVICE) for _ in range(2))
    return 2 * size**3 / seconds(lambda: first @ second) / 1e9


def main(work: Work) -> dict[str, Any]:
    keep_freed_memory()
    registry = load_registry()
    compute = compute_config(DEVICE, work.precision)  # type: ignore[arg-type]
    backbone = registry.make("backbone", "vgg16", {"features": "map", "weights": "none"})
    backbone.preprocess = backbone.preprocess.override({"size": work.size})
    head = registry.make("head", "mlp", {"hidden": HIDDEN, "dropout": DROPOUT}, backbone, ["cat", "dog"])
    network = to_layout(Classifier(backbone, head), DEVICE)
    trainable = registry.make("freeze-policy", "all-but-last-blocks", {"blocks": 1}, network)
    freeze(network, trainable)
    example = torch.zeros(1, 3, work.size, work.size, device=DEVICE)
    partitioned = partition(network, trainable, example, update_statistics=False)
    images = torch.randn(work.batch, 3, work.size, work.size, device=DEVICE)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(work.batch, device=DEVICE) % 2

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), compute.autocast():
            return partitioned.prefix(images)

    crossing = [value.to(compute.dtype).contiguous(memory_format=torch.channels_last) for value in forward()]
    optimizer = torch.optim.SGD(
        [value for value in partitioned.parameters() if value.requires_grad],
        lr=LR,
        momentum=MOMENTUM,
        fused=True,
    )

    def step() -> None:
        partitioned.train()
        with compute.autocast():
            logits = partitioned(*crossing)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return {
        "forward": work.batch / seconds(forward),
        "step": work.batch / seconds(step),
        "matrix_rate": matrix_rate(compute.dtype),
    }


if __name__ == "__main__":
    with gpu_settings(DEVICE):  # as in a run
        contend(main)
