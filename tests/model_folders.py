"""Model folders whose config.json was changed by somebody who knows how it is signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], object]


def change_config(folder: Path, change: Change) -> None:
    """Changes a model folder's config.json, and its checksum with it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    sign(config)
    path.write_text(json.dumps(config))


def sign(config: dict[str, Any]) -> None:
    """Renews the checksum of a config.json's content."""
    table = config.get("tlkit")
    if isinstance(table, dict):
        table.pop("config_sha256", None)
        table["config_sha256"] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
