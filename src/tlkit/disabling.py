"""Which plugins are left out: ``TLKIT_DISABLE_PLUGINS`` names them, ``*`` all that are not built in."""

from __future__ import annotations

import os
import re

DISABLE = "TLKIT_DISABLE_PLUGINS"


def is_disabled(*names: str) -> bool:
    """Whether a plugin that is called by any of these names is left out."""
    left_out = {_normal(name) for name in os.environ.get(DISABLE, "").split(",")}
    return bool(left_out & {"*", *map(_normal, names)})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
