"""Tries learning rates from far too low to far too high in one short run of training.

The learning-rate range test of Smith, "Cyclical learning rates for training neural networks", 2017.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from tlkit.analysis.head_folds import FoldedFeatures
from tlkit.parts.loss import Loss
from tlkit.recipe.schema import TrainingSpec
from tlkit.training.loop import class_weights
from tlkit.training.optimizers import make_optimizer
from tlkit.utils.hashing import seed
from tlkit.utils.json_files import JsonModel

#: The learning rates of the first and the last step, and the number of steps.
FROM, TO, STEPS = 1e-6, 10.0, 100
#: How much of the loss of the steps before counts in that of a step.
SMOOTHING = 0.8
#: The test ends where the loss is so many times the lowest one.
DIVERGED = 4.0


class RangeTest(JsonModel):
    """The loss of a head while its learning rate grows with every step.

    Attributes:
        rates: the learning rate of each step.
        losses: the loss of each step's batch before the step, smoothed over the steps before.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]


def range_test(head: nn.Module, data: FoldedFeatures, training: TrainingSpec, loss: Loss) -> RangeTest:
    """Trains a copy of a head with a learning rate that grows from 1e-6 to 10, until its loss diverges.

    Args:
        head: with the weights that it starts from; it is not changed.
        data: the features; all images are trained on.
        training: the batch size, the optimiser and the weights of classes.
        loss: what is minimised.
    """
    network = copy.deepcopy(head).train()
    optimizer = make_optimizer(network, training.optimizer)
    labels = torch.from_numpy(data.labels)
    weights = class_weights(data.labels, data.classes, training)[labels]
    generator = np.random.default_rng(seed(data.seed, "range test"))
    rates, losses, mean, lowest = [], [], 0.0, np.inf
    torch.manual_seed(seed(data.seed, "range test dropout"))
    for step, rate in enumerate(np.geomspace(FROM, TO, STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        size = min(training.batch_size, len(data))
        batch = torch.from_numpy(generator.choice(len(data), size, replace=False))
        of_images = loss(network(data.views[0][batch]).float(), labels[batch])
        value = (of_images * weights[batch]).sum() / weights[batch].sum()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(value.detach())
        smoothed = mean / (1 - SMOOTHING ** (step + 1))
        if not np.isfinite(smoothed) or smoothed > DIVERGED * lowest:
            break
        lowest = min(lowest, smoothed)
        rates.append(float(rate))
        losses.append(smoothed)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return RangeTest(rates=tuple(rates), losses=tuple(losses))
