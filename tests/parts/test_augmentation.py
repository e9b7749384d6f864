"""The identity of an augmentation's code: edited code, and other libraries, draw other views."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import albumentations
import pytest

from tlkit.parts import augmentation as augmentation_module
from tlkit.parts.augmentation import code_identity

STEP = "import albumentations\n\nclass Step(albumentations.HorizontalFlip):\n    strength = {}\n"


def identity(folder: Path, strength: int) -> list[str]:
    """Returns the identity with a step in a module of its own, as a plugin has it."""
    (folder / "a_plugins_steps.py").write_text(STEP.format(strength))
    sys.modules.pop("a_plugins_steps", None)
    importlib.invalidate_caches()
    augmentation_module._source.cache_clear()
    importlib.import_module("linecache").clearcache()
    module = importlib.import_module("a_plugins_steps")
    return code_identity(albumentations.Compose([albumentations.Sequential([module.Step()])]))


def test_an_edited_step_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside another step, and in another file than the augmentation's factory."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert identity(tmp_path, 1) == identity(tmp_path, 1) != identity(tmp_path, 22)


def test_it_has_the_versions_of_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = albumentations.Compose([albumentations.HorizontalFlip()])
    before = code_identity(compose)
    assert any(entry.startswith("numpy ") for entry in before)
    monkeypatch.setattr(augmentation_module, "version", lambda _: "99")
    assert code_identity(compose) != before


def test_the_libraries_are_those_that_python_itself_finds() -> None:
    """Packages whose distribution has another name, and modules that are a single file, too."""
    known = packages_distributions()
    for package in ("albumentations", "cv2", "numpy", "tlkit_catsdogs", "typing_extensions"):
        names = augmentation_module._distributions(frozenset({package}))
        assert names == set(known.get(package, ()))
    assert augmentation_module._distributions(frozenset({"cv2"})) == {"opencv-python-headless"}
