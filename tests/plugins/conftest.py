"""Installing plugins: real packages with a real .dist-info on the path."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugin_packages import WORKSPACE


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a distribution ``tlkit-<name>`` whose entry point <name> is a module with the given source."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules = []

    def write(name: str, source: str, *, entry: str | None = None, distribution: str | None = None) -> None:
        module = f"tlkit_test_{name}"
        modules.append(module)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        distribution = distribution or f"tlkit-{name}"
        info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        points = info / "entry_points.txt"
        known = points.read_text() if points.exists() else "[tlkit]\n"
        points.write_text(f"{known}{name} = {entry or module}\n")
        importlib.invalidate_caches()

    yield write
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(autouse=True)
def _only_plugins_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the plugins that are installed beside the toolkit."""
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", ",".join(WORKSPACE))
