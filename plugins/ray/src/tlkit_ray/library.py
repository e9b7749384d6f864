"""Ray, with settings that it reads when it is imported."""

import os

# Otherwise it would send the current folder to workers, and start them by `uv run` if that started tlkit,
# and would report to its makers that it is used.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray._private.utils import read_ray_address

__all__ = ["ray", "read_ray_address"]
