"""What the arithmetic allows: the same forward pass and step on tensors that are in memory already."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.work import DROPOUT, HIDDEN, LR, MOMENTUM, Work, contend
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.freezing import freeze
from tlkit.model.partition import partition
from tlkit.plugins.loader import load_registry
from tlkit.runtime.devices import choose_device, compute_config, tf32_matmul
from tlkit.runtime.memory import keep_freed_memory

#: Runs that are thrown away, and runs whose median is taken.
WARM, RUNS = 2, 7
DEVICE = choose_device(None)


def seconds(run: Callable[[], object]) -> float:
    """The median time of one call."""
    times = []
    for number in range(WARM + RUNS):
        began = time.perf_counter()
        run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Operations a second of a large product of matrices, in units of 10^9."""
    first, second = (torch.randn(size, size, dtype=dtype, device=DEVICE) for _ in range(2))
    return 2 * size**3 / seconds(lambda: first @ second) / 1e9


def main(work: Work) -> dict[str, Any]:
    keep_freed_memory()
    registry = load_registry()
    how = compute_config(DEVICE, work.precision)  # type: ignore[arg-type]
    backbone = registry.make("backbone", "vgg16", {"features": "map", "weights": "none"})
    backbone.preprocess = backbone.preprocess.override({"size": work.size})
    head = registry.make("head", "mlp", {"hidden": HIDDEN, "dropout": DROPOUT}, backbone, ["cat", "dog"])
    network = to_layout(Classifier(backbone, head), DEVICE)
    learning = registry.make("freeze-policy", "all-but-last-blocks", {"blocks": 1}, network)
    freeze(network, learning)
    example = torch.zeros(1, 3, work.size, work.size, device=DEVICE)
    divided = partition(network, learning, example, move_statistics=False)
    images = torch.randn(work.batch, 3, work.size, work.size, device=DEVICE)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(work.batch, device=DEVICE) % 2

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), how.autocast():
            return divided.prefix(images)

    crossing = [value.to(how.dtype).contiguous(memory_format=torch.channels_last) for value in forward()]
    optimizer = torch.optim.SGD(
        [value for value in divided.parameters() if value.requires_grad],
        lr=LR,
        momentum=MOMENTUM,
        fused=True,
    )

    def step() -> None:
        divided.train()
        with how.autocast():
            logits = divided(*crossing)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return {
        "forward": work.batch / seconds(forward),
        "step": work.batch / seconds(step),
        "matrix_rate": matrix_rate(how.dtype),
    }


if __name__ == "__main__":
    with tf32_matmul(DEVICE):  # as a run has it
        contend(main)
