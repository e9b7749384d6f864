"""Checks of a backbone's blocks: their order, partitioning in front of them, and training them."""

from __future__ import annotations

from itertools import pairwise

from tlkit.testing.backbone_subject import Subject
from tlkit.testing.parameter_order import parameter_order
from tlkit.testing.runner import CheckFailed, NotApplicable
from tlkit.testing.train_step import fine_tune_step, partition_at, partition_problem
from tlkit.utils.formatting import plural, shortlist


def blocks_cover_every_parameter_once(subject: Subject) -> str:
    """`Backbone.blocks` has each parameter in exactly one block, and no other names."""
    blocks = subject.backbone.blocks()
    names = [name for name, _ in subject.backbone.module.named_parameters()]
    grouped = [name for block in blocks for name in block.parameters]
    missing = [name for name in names if name not in set(grouped)]
    unknown = [name for name in grouped if name not in set(names)]
    repeated = sorted({name for name in grouped if grouped.count(name) > 1})
    for wrong, problem in (
        (missing, "in no block"),
        (unknown, "not a parameter"),
        (repeated, "in more than one block"),
    ):
        if wrong:
            raise CheckFailed(
                expected=f"each of {len(names)} parameters in exactly one block",
                got=f"{shortlist(wrong)}: {problem}",
                fix="give Backbone(grouping=…) every name of module.named_parameters() in exactly one Block",
            )
    empty = [block.name for block in blocks if not block.parameters]
    if empty:
        raise CheckFailed(
            expected="parameters in every block", got=f"none in {shortlist(empty)}", fix="leave it out"
        )
    return f"{len(blocks)} blocks, {len(names)} parameters"


def blocks_go_from_input_to_output(subject: Subject) -> None:
    """A block's parameters are first used after those of the block before it."""
    order = parameter_order(subject.backbone.module, lambda: subject.features(subject.images(2)))
    first_uses = []
    for block in subject.backbone.blocks():
        uses = [order[name] for name in block.parameters if name in order]
        if uses:
            first_uses.append((min(uses), block.name))
    for (use, name), (next_use, next_name) in pairwise(first_uses):
        if next_use < use:
            raise CheckFailed(
                expected="blocks in the order in which the forward pass uses them",
                got=f"block {next_name!r}, listed after {name!r}, is used before it",
                fix="order Backbone(grouping=…) from input to output, and put parameters that are used early "
                "into an early block: fine-tuning trains the last blocks",
            )


def can_be_partitioned_at_every_block(subject: Subject) -> str:
    """Partitioned in front of any number of last blocks, the classifier computes the same logits."""
    blocks = subject.backbone.blocks()
    if not blocks:
        raise NotApplicable("it has no parameters")
    classifier = subject.classifier()
    images = subject.images(2)
    reasons = [
        partition_problem(partition_at(classifier, count, images), count, images)
        for count in range(len(blocks))
    ]
    partitioned = sum(reason is None for reason in reasons)
    problems = [
        f"with {plural(count, 'trainable block')}: {reason}" for count, reason in enumerate(reasons) if reason
    ]
    if not partitioned:
        raise NotApplicable(f"it always trains whole, without cached features; {problems[-1]}")
    exceptions = f"; not {shortlist(problems, 2)}" if problems else ""
    return f"at {partitioned} of {len(blocks)} frontiers{exceptions}"


def frozen_parameters_do_not_change(subject: Subject) -> str:
    """A training step of the last block and the head leaves everything else bit-identical."""
    if not subject.backbone.blocks():
        raise NotApplicable("it has no parameters")
    images = subject.images(4)
    return fine_tune_step(partition_at(subject.classifier(), 1, images), images)


def gradients_reach_every_block(subject: Subject) -> None:
    """Every block has gradients when nothing is frozen."""
    classifier = subject.classifier().train()
    for value in classifier.parameters():
        value.requires_grad_(value.is_floating_point())
    classifier(subject.images(4)).square().sum().backward()
    gradients = {name: value.grad for name, value in classifier.named_parameters()}
    without = [
        block.name
        for block in classifier.blocks()
        if all(gradients[name] is None for name in block.parameters)
    ]
    if without:
        raise CheckFailed(
            expected="gradients in every block when nothing is frozen",
            got=f"none in {shortlist(without)}",
            fix="look for detach() or no_grad() in the network, or for a block that forward does not use",
        )
