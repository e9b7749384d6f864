"""The plugins that a model folder's parts come from, named so that they can be installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from pydantic import Field

# a stranger may have written them, and an error shows them in a command
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+!_-]{1,100}$")]

#: Distributions with their versions.
Plugins = dict[_Name, _Version]


def describe_missing(plugins: Mapping[str, str]) -> str:
    """Returns a sentence on how to install those that are missing, or an empty string."""
    missing = [name for name in plugins if not _is_installed(name)]
    if not missing:
        return ""
    made_with, names = " and ".join(f"{name} {plugins[name]}" for name in missing), " ".join(missing)
    return f". It was made with {made_with}, not installed here; if you trust it: pip install {names}"


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
