"""The built-in freeze policies: which parameters are trainable."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tlkit.errors import PluginError, close_matches
from tlkit.parts.backbone import BlockNetwork
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register


@hookimpl
def tlkit_freeze_policies(register: Register) -> None:
    register("backbone", backbone)
    register("nothing", nothing)
    register("all-but-last-blocks", all_but_last_blocks)
    register("matching", matching)


def backbone(classifier: BlockNetwork) -> set[str]:
    """Freezes the backbone: the head alone is trainable."""
    return _head(classifier)


def nothing(classifier: BlockNetwork) -> set[str]:
    """Freezes nothing: the whole network is trainable."""
    return {name for name, _ in classifier.named_parameters()}


def all_but_last_blocks(classifier: BlockNetwork, *, blocks: int = 1) -> set[str]:
    """Freezes all blocks of the backbone but the last ones: these and the head are trainable.

    Args:
        blocks: number of trainable blocks of the backbone, counted from its output;
            `tlkit plugins blocks NAME` lists the blocks.
    """
    backbone_blocks = classifier.blocks()
    if not 1 <= blocks <= len(backbone_blocks):
        raise PluginError(
            f"blocks = {blocks}, but the backbone has {len(backbone_blocks)}: "
            f"{', '.join(block.span for block in backbone_blocks)}"
        )
    return _head(classifier).union(*(block.parameters for block in backbone_blocks[-blocks:]))


def matching(classifier: BlockNetwork, *, trainable: list[str]) -> set[str]:
    """Freezes all parameters but those whose names match a pattern.

    Args:
        trainable: shell-style patterns of the names of trainable parameters, such as
            "backbone.layer4.*" or "head.*".
    """
    names = [name for name, _ in classifier.named_parameters()]
    selected: set[str] = set()
    for pattern in trainable:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            raise PluginError(
                f"no parameter's name matches {pattern!r}{close_matches(pattern, names)}; "
                f"the first is {names[0]!r}, the last {names[-1]!r}"
            )
        selected |= matches
    return selected


def _head(classifier: BlockNetwork) -> set[str]:
    return {name for name, _ in classifier.named_parameters() if name.startswith("head.")}
