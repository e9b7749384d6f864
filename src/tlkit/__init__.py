"""tlkit: transfer learning for image classification with little data.

The public names are loaded on first use, so that importing tlkit imports neither torch nor timm.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.components import (
        Backbone,
        Block,
        Download,
        Preprocess,
        Sample,
        Source,
    )
    from tlkit.errors import TlkitError
    from tlkit.explaining.attribution import explain
    from tlkit.fetching import Fetched, fetch
    from tlkit.fitting import fit
    from tlkit.folders import cache_folder
    from tlkit.hookspecs import hookimpl
    from tlkit.networks import from_timm, load_weights
    from tlkit.observer import Observer, Run
    from tlkit.plugins import load_registry
    from tlkit.predictor import Prediction, Predictions, Predictor, load
    from tlkit.recipe import Recipe, read_recipe
    from tlkit.reporting import compare, report
    from tlkit.runs import run

_HOMES = {
    "Backbone": "components",
    "Block": "components",
    "Download": "components",
    "Fetched": "fetching",
    "Observer": "observer",
    "Prediction": "predictor",
    "Predictions": "predictor",
    "Predictor": "predictor",
    "Preprocess": "components",
    "Recipe": "recipe",
    "Run": "observer",
    "Sample": "components",
    "Source": "components",
    "TlkitError": "errors",
    "cache_folder": "folders",
    "explain": "explaining.attribution",
    "compare": "reporting",
    "fetch": "fetching",
    "fit": "fitting",
    "from_timm": "networks",
    "hookimpl": "hookspecs",
    "load": "predictor",
    "load_registry": "plugins",
    "load_weights": "networks",
    "read_recipe": "recipe",
    "report": "reporting",
    "run": "runs",
}

__all__ = [
    "Backbone",
    "Block",
    "Download",
    "Fetched",
    "Observer",
    "Prediction",
    "Predictions",
    "Predictor",
    "Preprocess",
    "Recipe",
    "Run",
    "Sample",
    "Source",
    "TlkitError",
    "cache_folder",
    "compare",
    "explain",
    "fetch",
    "fit",
    "from_timm",
    "hookimpl",
    "load",
    "load_registry",
    "load_weights",
    "read_recipe",
    "report",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tlkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tlkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
