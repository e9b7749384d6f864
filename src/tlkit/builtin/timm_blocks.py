"""Where a timm network's blocks end, told from its own structure."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import nn

from tlkit.components import Block


def blocks(module: nn.Module) -> list[Block]:
    """The network's blocks from input to output; each parameter is in exactly one.

    A block ends at each module that ``feature_info`` names, in the order of registration; what
    follows the last joins it, and a block without parameters is dropped. Where ``feature_info``
    names no modules in that order, the coarse ``group_matcher`` serves.
    """
    net: Any = getattr(module, "net", module)
    prefix = "" if net is module else "net."
    ends = _ends(net)
    groups = _by_end(net, ends) if ends else _by_matcher(net)
    return [Block(name, tuple(prefix + key for key in keys)) for name, keys in groups.items() if keys]


def _ends(net: Any) -> dict[str, int]:
    """Each feature module's name and the position of the last module inside it; empty if unusable."""
    order = [name for name, _ in net.named_modules()]
    info = getattr(net, "feature_info", None) or []
    ends: dict[str, int] = {}
    for name in (entry["module"] for entry in info):
        inside = [position for position, other in enumerate(order) if f"{other}.".startswith(f"{name}.")]
        if not inside:
            return {}
        ends[name] = inside[-1]
    positions = list(ends.values())
    return ends if len(ends) > 1 and positions == sorted(set(positions)) else {}


def _by_end(net: nn.Module, ends: dict[str, int]) -> dict[str, list[str]]:
    order = {name: position for position, (name, _) in enumerate(net.named_modules())}
    groups: dict[str, list[str]] = {name: [] for name in ends}
    last = list(ends)[-1]
    for key, _ in net.named_parameters():
        owner = order[key.rpartition(".")[0]]
        groups[next((name for name, end in ends.items() if owner <= end), last)].append(key)
    return groups


def _by_matcher(net: Any) -> dict[str, list[str]]:
    groups = group_parameters(net, net.group_matcher(coarse=True))
    return {f"group {number}": list(keys) for number, keys in sorted(groups.items())}
