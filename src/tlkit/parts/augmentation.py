"""What an augmentation is, and its deterministic beginning."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import distributions, version
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from tlkit.utils.hashing import digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Transform(Protocol):
    """A step of an augmentation, such as a transform of albumentations."""

    def __call__(self, *, image: NDArray[np.uint8]) -> Mapping[str, Any]:
        """Transforms uint8 RGB ``(H, W, 3)``; the result's ``image`` has the new pixels."""


class Augmentation(Transform, Protocol):
    """What an augmentation's factory returns, such as an ``albumentations.Compose``.

    It maps a decoded image of any size to ``(size, size, 3)``, `size` being ``preprocess.size``, and draws
    from generators of its own, which `set_random_seed` seeds.
    """

    def set_random_seed(self, seed: int) -> None:
        """Seeds the generators that the next call draws from."""


def code_identity(augmentation: Augmentation) -> list[str]:
    """Returns what identifies the code that an augmentation runs, so that edited code draws other views.

    That is the source of the modules that define its steps, and the versions of the libraries that they draw
    with.
    """
    modules = {base.__module__ for step in _steps(augmentation) for base in type(step).__mro__}
    sources = [digest(_source(name)) for name in sorted(modules - {"builtins"})]
    packages = frozenset({"albumentations", "numpy", "cv2", *(name.partition(".")[0] for name in modules)})
    return [*sources, *(f"{name} {version(name)}" for name in sorted(_distributions(packages)))]


def _steps(augmentation: Any) -> Iterator[Any]:
    """Yields an augmentation, and the steps inside it."""
    yield augmentation
    inner = getattr(augmentation, "transforms", ())
    for step in inner if isinstance(inner, list | tuple) else ():
        yield from _steps(step)


@cache
def _distributions(packages: frozenset[str]) -> set[str]:
    """Returns the names of the distributions that install any of the packages or modules.

    `importlib.metadata.packages_distributions` makes a path of every installed file, which takes a second
    where there are many.
    """
    names = set()
    for distribution in distributions():
        installed = (distribution.read_text("top_level.txt") or "").split()
        if not installed:
            lines = (distribution.read_text("RECORD") or "").splitlines()
            installed = [line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in lines]
        if not packages.isdisjoint(installed):
            names.add(distribution.metadata["Name"])
    return names


@cache
def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (OSError, TypeError, KeyError):
        return ""


def split_fixed_steps(augmentation: Augmentation) -> tuple[Sequence[Transform], Augmentation]:
    """Copies an augmentation, divided into the deterministic steps that it starts with and the rest.

    A step declares that it draws nothing with an attribute ``fixed = True``. Its result can be cached.
    """
    import albumentations

    own: Any = copy.deepcopy(augmentation)
    if type(own) is not albumentations.Compose:
        return [], own
    fixed = list(takewhile(lambda step: getattr(step, "fixed", False), own.transforms))
    own.transforms = own.transforms[len(fixed) :]
    return fixed, own
