"""Plugins that are switched off: ``TLKIT_DISABLE_PLUGINS`` names them, ``*`` all that are not built in.

A module of its own, since `tlkit --help` needs it and should not import pydantic.
"""

from __future__ import annotations

import os
import re

VARIABLE = "TLKIT_DISABLE_PLUGINS"


def is_disabled(*names: str) -> bool:
    """Returns whether a plugin with any of these names is switched off."""
    disabled = {_normalize(name) for name in os.environ.get(VARIABLE, "").split(",")}
    return bool(disabled & {"*", *map(_normalize, names)})


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
