"""The contract suite: what every part must do, as checks that say how to mend what fails.

    from tlkit.testing import check_backbone

    def test_contract():
        check_backbone("tiny", width=8)

The `check_…` functions are for a plugin's own tests; `results` is for those who want to show them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit.plugins.options import Factory
from tlkit.plugins.registry import Registry
from tlkit.testing import augmentations, backbones, freeze_policies, heads, sources
from tlkit.testing.runner import CLASSES, Check, PartUnderTest, Result, raise_for_failures, run_checks

#: By kind, what is checked beside its options and that it can be made.
CHECKS: Mapping[str, Sequence[Check[Any]]] = {
    "backbone": backbones.CHECKS,
    "head": heads.CHECKS,
    "augmentation": augmentations.CHECKS,
    "freeze-policy": freeze_policies.CHECKS,
    "source": sources.CHECKS,
}

__all__ = [
    "CHECKS",
    "CLASSES",
    "Result",
    "check_augmentation",
    "check_backbone",
    "check_freeze_policy",
    "check_head",
    "check_source",
    "results",
]


def check_backbone(part: str | Factory, *, size: int | None = None, **options: Any) -> list[Result]:
    """Checks a backbone, by its registered name or as a factory.

    Args:
        part: the name or the factory.
        size: of the images, in pixels; the backbone's own unless given. Small ones are faster.
        **options: the part's.

    Raises:
        AssertionError: it fails some checks, which are all listed.
        PluginError: no such part, or wrong options.
    """
    return raise_for_failures(results("backbone", part, options, size=size))


def check_head(part: str | Factory, **options: Any) -> list[Result]:
    """Checks a head; the classes are `CLASSES`. See `check_backbone`."""
    return raise_for_failures(results("head", part, options))


def check_augmentation(part: str | Factory, **options: Any) -> list[Result]:
    """Checks an augmentation. See `check_backbone`."""
    return raise_for_failures(results("augmentation", part, options))


def check_freeze_policy(part: str | Factory, **options: Any) -> list[Result]:
    """Checks a freeze policy, on networks with the blocks stem, middle and last. See `check_backbone`."""
    return raise_for_failures(results("freeze-policy", part, options))


def check_source(part: str | Factory, root: Path | None = None, **options: Any) -> list[Result]:
    """Checks a source of the images in `root`. See `check_backbone`."""
    return raise_for_failures(results("source", part, options, root=root))


def results(
    kind: str,
    part: str | Factory,
    options: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    root: Path | None = None,
    size: int | None = None,
) -> Iterator[Result]:
    """Every check's result, one after the other.

    Args:
        kind: one of `tlkit.plugins.KINDS`.
        part: a registered name, or a factory.
        options: the part's, as a recipe gives them.
        registry: of all parts; loaded unless given.
        root: a source's folder.
        size: of a backbone's images, in pixels.

    Raises:
        TlkitError: no such part, wrong options, or a part that says it cannot be had like this.
    """
    bench = PartUnderTest.of(kind, part, options, registry)
    preprocess = {"size": size} if size else {}
    setups: Mapping[str, Callable[[PartUnderTest], Any]] = {
        "backbone": lambda bench: backbones.setup(bench, preprocess),
        "head": heads.setup,
        "augmentation": augmentations.setup,
        "freeze-policy": freeze_policies.setup,
        "source": lambda bench: sources.setup(bench, root),
    }
    return run_checks(bench, setups[kind], CHECKS[kind])
