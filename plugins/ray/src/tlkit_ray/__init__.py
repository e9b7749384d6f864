"""Ray for tlkit: the frozen pass on the computers of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tlkit
from tlkit_ray.engine import ray_engine

if TYPE_CHECKING:
    from tlkit import Register


@tlkit.hookimpl
def tlkit_engines(register: Register) -> None:
    register("ray", ray_engine)
