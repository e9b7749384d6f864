"""Dividing a classifier and training it for a step, and what moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.model.freezing import freeze
from tlkit.model.partition import partition
from tlkit.testing.runner import CLASSES, EXACT_TOLERANCE, CheckFailed, relative_difference, shortlist


def partition_problem(classifier: Classifier, count: int, images: Tensor) -> str | None:
    """Divides in front of the last `count` blocks; why nothing can be kept, or None.

    Raises:
        Failed: the divided network gives other logits than the whole.
    """
    parts = partition(classifier, last_blocks(classifier, count), images[:1], move_statistics=False)
    if parts.why_not is not None:
        return parts.why_not
    with torch.no_grad():
        whole, logits = classifier(images), parts(*parts.prefix(images))
    if relative_difference(logits, whole) > EXACT_TOLERANCE:
        raise CheckFailed(
            expected=f"the network, divided in front of its last {count} blocks, to give the whole's logits",
            came=f"a difference of {relative_difference(logits, whole):.1e} of the largest",
            mend="let forward depend on its input and its parameters alone, not on what it has noted",
        )
    return None


def last_blocks(classifier: Classifier, count: int) -> set[str]:
    """The names of the head's parameters and the last blocks'."""
    blocks = classifier.blocks()
    learning = {name for name, _ in classifier.named_parameters() if name.startswith("head.")}
    return learning.union(*(block.parameters for block in blocks[len(blocks) - count :]))


def fine_tune_step(classifier: Classifier, images: Tensor) -> str:
    """Trains the last block and the head for one step, and looks at what moved.

    Raises:
        Failed: something frozen moved, or nothing of the block did.
    """
    learning = last_blocks(classifier, 1)
    freeze(classifier, learning)
    parts = partition(classifier, learning, images[:1], move_statistics=False)
    with torch.no_grad():
        parts(*parts.prefix(images))  # the first pass may note positions for an image size
    before = full_state(classifier)
    moving = {name: value for name, value in classifier.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(moving.values(), lr=0.1)
    labels = torch.arange(len(images)) % len(CLASSES)
    parts.train()
    loss: Any = nn.functional.cross_entropy(parts(*parts.prefix(images)), labels)
    loss.backward()
    optimizer.step()
    changed = changed_names(before, full_state(classifier))
    wrong = [name for name in changed if name not in learning]
    if wrong:
        raise CheckFailed(
            expected="all but the last block and the head to stay bit for bit in a training step",
            came=f"a change of {shortlist(wrong)}",
            mend="change no buffer or parameter in forward; running statistics belong into a batch norm, "
            "which tlkit holds still",
        )
    block = classifier.blocks()[-1]
    if all(moving[name].grad is None for name in block.parameters):
        raise CheckFailed(
            expected="a gradient for the last block",
            came=f"none for any parameter of block {block.name!r}",
            mend="look for detach() or no_grad() in the network, or a block that the features do not pass",
        )
    return "" if parts.why_not is None else f"it trains whole: {parts.why_not}"


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, those left out of state_dict too."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def changed_names(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """The names whose values are not the same bit for bit; a number that is none equals itself."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before
        or name not in after
        or before[name].shape != after[name].shape
        or not torch.equal(before[name].nan_to_num(), after[name].nan_to_num())
    )
