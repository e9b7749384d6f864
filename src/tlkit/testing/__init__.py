"""The contract suite: checks of what every part must do, with messages that say how to fix what fails.

    from tlkit.testing import check_backbone

    def test_contract():
        check_backbone("tiny", width=8)

The `check_…` functions are for a plugin's own tests; `results` yields the single results, to be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tlkit.plugins.options import Factory
from tlkit.plugins.registry import Registry
from tlkit.testing import (
    augmentations,
    backbone_subject,
    backbones,
    engines,
    freeze_policies,
    heads,
    losses,
    sources,
)
from tlkit.testing.runner import CLASSES, PartUnderTest, Result, raise_for_failures, run_checks

#: By kind, the checks that are run after "options are declared" and "can be made".
CHECKS: Mapping[str, Sequence[Callable[..., str | None]]] = {
    "backbone": backbones.CHECKS,
    "head": heads.CHECKS,
    "loss": losses.CHECKS,
    "augmentation": augmentations.CHECKS,
    "freeze-policy": freeze_policies.CHECKS,
    "source": sources.CHECKS,
    "engine": engines.CHECKS,
}

__all__ = [
    "CHECKS",
    "CLASSES",
    "Result",
    "check_augmentation",
    "check_backbone",
    "check_engine",
    "check_freeze_policy",
    "check_head",
    "check_loss",
    "check_source",
    "results",
]


def check_backbone(part: str | Factory, *, size: int | None = None, **options: object) -> list[Result]:
    """Checks a backbone.

    Args:
        part: its registered name, or a factory.
        size: height and width of the images in pixels; the backbone's own unless given. Small images are
            faster.
        **options: the part's options.

    Returns:
        The results; none of them failed.

    Raises:
        AssertionError: some checks failed; all of them are listed.
        PluginError: no part of that name is registered, or an option is wrong.
    """
    return raise_for_failures(results("backbone", part, options, size=size))


def check_head(part: str | Factory, **options: object) -> list[Result]:
    """Checks a head, with `CLASSES` as the class names. See `check_backbone`."""
    return raise_for_failures(results("head", part, options))


def check_loss(part: str | Factory, **options: object) -> list[Result]:
    """Checks a loss, with `CLASSES` as the class names, one of them without images. See `check_backbone`."""
    return raise_for_failures(results("loss", part, options))


def check_augmentation(part: str | Factory, **options: object) -> list[Result]:
    """Checks an augmentation. See `check_backbone`."""
    return raise_for_failures(results("augmentation", part, options))


def check_freeze_policy(part: str | Factory, **options: object) -> list[Result]:
    """Checks a freeze policy, on networks with the blocks stem, middle and last. See `check_backbone`."""
    return raise_for_failures(results("freeze-policy", part, options))


def check_source(part: str | Factory, root: Path | None = None, **options: object) -> list[Result]:
    """Checks a source of the images in the folder `root`. See `check_backbone`."""
    return raise_for_failures(results("source", part, options, root=root))


def check_engine(part: str | Factory, **options: object) -> list[Result]:
    """Checks an engine, with workers that compute nothing. See `check_backbone`."""
    return raise_for_failures(results("engine", part, options))


def results(
    kind: str,
    part: str | Factory,
    options: Mapping[str, object] | None = None,
    *,
    registry: Registry | None = None,
    root: Path | None = None,
    size: int | None = None,
) -> Iterator[Result]:
    """Yields the result of each check as soon as it ran.

    Args:
        kind: one of `tlkit.plugins.registry.KINDS`.
        part: a registered name, or a factory.
        options: the part's options, as in a recipe.
        registry: all parts; loaded unless given.
        root: a source's folder.
        size: height and width of a backbone's images, in pixels.

    Raises:
        TlkitError: no part of that name is registered, an option is wrong, or the part refuses its options
            or its root.
        ValueError: there is no such kind.
    """
    if kind not in CHECKS:
        raise ValueError(f"{kind!r} is not one of {', '.join(CHECKS)}")
    tested = PartUnderTest.of(kind, part, options, registry)
    if kind == "backbone":
        return run_checks(tested, partial(backbone_subject.setup, size=size), backbones.CHECKS)
    if kind == "head":
        return run_checks(tested, heads.setup, heads.CHECKS)
    if kind == "loss":
        return run_checks(tested, losses.setup, losses.CHECKS)
    if kind == "augmentation":
        return run_checks(tested, augmentations.setup, augmentations.CHECKS)
    if kind == "freeze-policy":
        return run_checks(tested, freeze_policies.setup, freeze_policies.CHECKS)
    if kind == "engine":
        return run_checks(tested, engines.setup, engines.CHECKS)
    return run_checks(tested, partial(sources.setup, root=root), sources.CHECKS)
