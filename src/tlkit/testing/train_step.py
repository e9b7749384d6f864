"""Partitions a classifier, trains it for one step, and compares its state before and after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.model.freezing import freeze
from tlkit.model.partition import Partition, partition
from tlkit.testing.runner import CLASSES, EXACT_TOLERANCE, CheckFailed, relative_difference
from tlkit.utils.formatting import plural, shortlist


def partition_at(classifier: Classifier, count: int, images: Tensor) -> Partition:
    """Partitions the classifier in front of its last `count` blocks."""
    trainable = parameters_of_last_blocks(classifier, count)
    return partition(classifier, trainable, images[:1], update_statistics=False)


def partition_problem(network: Partition, count: int, images: Tensor) -> str | None:
    """Compares a classifier that is partitioned in front of its last `count` blocks with the whole one.

    Returns:
        Why it can only be trained whole, without cached features; None if it is partitioned.

    Raises:
        CheckFailed: the partitioned network and the whole one compute different logits.
    """
    if network.fallback_reason is not None:
        return network.fallback_reason
    with torch.no_grad():
        expected, logits = network.classifier(images), network(*network.prefix(images))
    difference = relative_difference(logits, expected)
    if difference > EXACT_TOLERANCE:
        raise CheckFailed(
            expected="the logits of the whole network after partitioning it in front of the last "
            f"{plural(count, 'block')}",
            got=f"a difference of {difference:.1e} of the largest logit",
            fix="let forward depend on its input and the parameters only, not on state of earlier calls",
        )
    return None


def parameters_of_last_blocks(classifier: Classifier, count: int) -> set[str]:
    """Returns the names of the parameters of the head and of the last `count` blocks."""
    blocks = classifier.blocks()
    head = {name for name, _ in classifier.named_parameters() if name.startswith("head.")}
    return head.union(*(block.parameters for block in blocks[len(blocks) - count :]))


def fine_tune_step(network: Partition, images: Tensor) -> str:
    """Trains the last block and the head of a classifier, partitioned there, for one step.

    Returns:
        Why the classifier was trained whole; empty if it was partitioned.

    Raises:
        CheckFailed: a frozen parameter or a buffer changed, or the last block has no gradients.
    """
    classifier = network.classifier
    names = parameters_of_last_blocks(classifier, 1)
    freeze(classifier, names)
    with torch.no_grad():
        network(*network.prefix(images))  # the first call may cache positions for the image size
    before = full_state(classifier)
    trainable = {name: value for name, value in classifier.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    labels = torch.arange(len(images)) % len(CLASSES)
    network.train()
    loss = nn.functional.cross_entropy(network(*network.prefix(images)), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    wrong = [name for name in changed_names(before, full_state(classifier)) if name not in names]
    if wrong:
        raise CheckFailed(
            expected="only the last block and the head to change in a training step, everything else to stay "
            "bit-identical",
            got=f"changes of {shortlist(wrong)}",
            fix="change no buffer or parameter in forward; keep running statistics in a batch norm layer, "
            "which tlkit puts into evaluation mode",
        )
    block = classifier.blocks()[-1]
    if all(trainable[name].grad is None for name in block.parameters):
        raise CheckFailed(
            expected="gradients in the last block",
            got=f"none for any parameter of block {block.name!r}",
            fix="look for detach() or no_grad() in the network, or for a block that forward does not use",
        )
    reason = network.fallback_reason
    return "" if reason is None else f"it trains whole: {reason}"


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies every parameter and buffer, including the buffers that state_dict leaves out."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def changed_names(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Returns the sorted names whose tensors are not bit-identical; NaN equals NaN."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before
        or name not in after
        or before[name].shape != after[name].shape
        or not torch.equal(before[name].nan_to_num(), after[name].nan_to_num())
    )
