"""Plugins as an installer leaves them: a module, and the .dist-info of its distribution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    site: Path,
    name: str,
    code: str,
    group: str = "tlkit",
    *,
    points: Mapping[str, str] | None = None,
    summary: str = "A test.",
) -> Path:
    """Writes the distribution `name` with one module of that name; returns the folder for the path.

    `points` are its entry points: one that names the module, unless given.
    """
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"{name}.py").write_text(code, encoding="utf-8")
    fields = {"Metadata-Version": "2.1", "Name": name, "Version": "1.0", "Summary": summary}
    (about / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    lines = [f"{key} = {value}" for key, value in (points or {name: name}).items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return site
