"""The toolkit's own freeze policies: which parameters learn."""

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
    """Freezes the backbone: the head alone learns, from features made once."""
    return _head(classifier)


def nothing(classifier: BlockNetwork) -> set[str]:
    """Freezes nothing: the whole network learns."""
    return {name for name, _ in classifier.named_parameters()}


def all_but_last_blocks(classifier: BlockNetwork, *, blocks: int = 1) -> set[str]:
    """Freezes everything in front of the last blocks; they and the head learn.

    Args:
        blocks: how many of the backbone's blocks learn, counted from the output;
            `tlkit plugins blocks NAME` lists them.
    """
    known = classifier.blocks()
    if not 1 <= blocks <= len(known):
        raise PluginError(
            f"blocks = {blocks}, but the backbone has {len(known)}: "
            f"{', '.join(block.name for block in known)}"
        )
    return _head(classifier).union(*(block.parameters for block in known[-blocks:]))


def matching(classifier: BlockNetwork, *, learn: list[str]) -> set[str]:
    """Freezes every parameter whose name no pattern matches.

    Args:
        learn: shell-style patterns of names that learn, such as "backbone.layer4.*" or "head.*".
    """
    names = [name for name, _ in classifier.named_parameters()]
    chosen: set[str] = set()
    for pattern in learn:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise PluginError(
                f"no parameter's name matches {pattern!r}{close_matches(pattern, names)}; "
                f"the first is {names[0]!r}, the last {names[-1]!r}"
            )
        chosen |= found
    return chosen


def _head(classifier: BlockNetwork) -> set[str]:
    return {name for name, _ in classifier.named_parameters() if name.startswith("head.")}
