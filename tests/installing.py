"""Installs plugins as an installer does: a module, and the .dist-info of its distribution."""

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
    """Writes a distribution with one module of the same name.

    Args:
        site: the folder to write to.
        name: the distribution's and the module's.
        code: the module's.
        group: the entry-point group.
        points: entry points by name; one that names the module unless given.
        summary: the distribution's.

    Returns:
        The folder, to be added to the path.
    """
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{name}.py").write_text(code, encoding="utf-8")
    fields = {"Metadata-Version": "2.1", "Name": name, "Version": "1.0", "Summary": summary}
    (metadata / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    lines = [f"{key} = {value}" for key, value in (points or {name: name}).items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return site
