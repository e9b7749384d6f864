"""What a check of a part is, what comes of it, and how a part is had for checking."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from tlkit.errors import PluginError, TlkitError
from tlkit.plugins import options as part_options
from tlkit.plugins.loader import load_registry
from tlkit.plugins.options import Factory
from tlkit.plugins.registry import Registry

Outcome = Literal["passed", "failed", "not applicable"]
#: The classes of every classifier that a check makes.
CLASSES = ("a", "b", "c")
#: How far two results may lie apart, as a part of the largest value, where only the order of sums differs.
ROUNDING_TOLERANCE = 1e-3
#: The same where even that is the same.
EXACT_TOLERANCE = 1e-5

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check.

    Attributes:
        kind: of the part, one of `tlkit.plugins.KINDS`.
        part: its name.
        check: what was checked.
        outcome: "passed", "failed" or "not applicable".
        message: of a failure, what was expected, what came and how to mend it; else a remark or nothing.
    """

    kind: str
    part: str
    check: str
    outcome: Outcome
    message: str = ""


class CheckFailed(Exception):
    """A check that a part does not meet."""

    def __init__(self, *, expected: str, came: str, mend: str) -> None:
        super().__init__(f"expected {expected}; came {came}; to mend: {mend}")


class NotApplicable(Exception):
    """A check that says nothing about this part; its text is the reason."""


#: Raises `Failed` or `NotApplicable`; may return a remark.
Check = Callable[[Subject], str | None]


@dataclass
class PartUnderTest:
    """A part under test, and the registry for whatever else a check needs.

    Attributes:
        kind: one of `tlkit.plugins.KINDS`.
        name: the part's.
        factory: makes it.
        options: as a recipe gives them.
        registry: of all parts.
    """

    kind: str
    name: str
    factory: Factory
    options: Mapping[str, Any] = field(default_factory=dict)
    registry: Registry = field(default_factory=load_registry)

    @classmethod
    def of(
        cls,
        kind: str,
        part: str | Factory,
        options: Mapping[str, Any] | None = None,
        registry: Registry | None = None,
    ) -> PartUnderTest:
        """A part by its registered name, or a factory that nobody registered.

        Raises:
            PluginError: nobody registered that name, or the options are not the part's.
        """
        registry = registry or load_registry()
        if isinstance(part, str):
            name, factory = part, registry.find(kind, part).factory
        else:
            name, factory = getattr(part, "__name__", type(part).__name__), part
        for key, problem in part_options.check(factory, options or {}):
            raise PluginError(f"{kind} {name!r}: option {key!r} {problem}")
        return cls(kind, name, factory, dict(options or {}), registry)

    def part(self, *args: Any) -> Any:
        """The part itself, made anew."""
        return self.factory(*args, **part_options.convert(self.factory, self.options))

    def make(self, kind: str, name: str, options: Mapping[str, Any], *args: Any) -> Any:
        """As `Registry.make`; under the name of the part under test it is that one that is made."""
        if (kind, name) == (self.kind, self.name):
            return self.factory(*args, **part_options.convert(self.factory, options))
        return self.registry.make(kind, name, options, *args)


def run_check(bench: PartUnderTest, check: Check[Subject], subject: Subject) -> Result:
    """Runs one check; whatever it raises becomes its result."""
    outcome: Outcome = "passed"
    name = check.__name__.replace("_", " ")
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            message = check(subject) or ""
    except CheckFailed as failure:
        outcome, message = "failed", str(failure)
    except NotApplicable as reason:
        outcome, message = "not applicable", str(reason)
    except Exception as error:
        outcome, message = "failed", _unforeseen(error, bench.factory)
    return Result(bench.kind, bench.name, name, outcome, message)


def run_checks(
    bench: PartUnderTest, setup: Callable[[PartUnderTest], Subject], checks: Sequence[Check[Subject]]
) -> Iterator[Result]:
    """Every check's result, one after the other; a part that cannot be made has but two.

    Raises:
        TlkitError: the part says itself that it cannot be had like this: a user's mistake.
    """
    yield run_check(bench, options_are_declared, bench)
    try:
        subject = setup(bench)
    except TlkitError:
        raise
    except Exception as error:
        yield Result(bench.kind, bench.name, "can be made", "failed", _unforeseen(error, bench.factory))
        return
    yield Result(bench.kind, bench.name, "can be made", "passed")
    for check in checks:
        yield run_check(bench, check, subject)


#: What a factory is given by position, by kind.
GIVEN = {
    "backbone": (),
    "head": ("backbone", "classes"),
    "augmentation": ("preprocess",),
    "freeze-policy": ("classifier",),
    "source": ("root",),
}


def options_are_declared(bench: PartUnderTest) -> str:
    """Every option is keyword-only and says its type, so that a recipe's mistakes are found."""
    factory: Any = bench.factory
    while hasattr(factory, "func"):
        factory = factory.func
    positional = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    # a partial has settled its first ones
    settled = len(getattr(bench.factory, "args", ()))
    extra = [parameter.name for parameter in positional[settled + len(GIVEN[bench.kind]) :]]
    if extra:
        signature = ", ".join((*GIVEN[bench.kind], "*", *extra))
        raise CheckFailed(
            expected=f"options to be keyword-only, after {len(GIVEN[bench.kind])} arguments by position",
            came=f"{', '.join(extra)} by position, which no recipe can set",
            mend=f"put a * in front of the first option: ({signature})",
        )
    known = part_options.describe(bench.factory)
    untyped = [option.name for option in known if option.type_text == "any"]
    if untyped:
        raise CheckFailed(
            expected="a type for every option, since recipes are validated by it",
            came=f"none for {', '.join(untyped)}",
            mend=f"annotate it, as in {untyped[0]}: int",
        )
    bare = [option.name for option in known if not option.doc]
    return f"the docstring's Args: says nothing of {', '.join(bare)}" if bare else ""


def raise_for_failures(results: Iterator[Result]) -> list[Result]:
    """All results, or an error that lists every failure.

    Raises:
        AssertionError: a check failed.
    """
    done = list(results)
    failed = [result for result in done if result.outcome == "failed"]
    if failed:
        first = failed[0]
        lines = [f"  {result.check}: {result.message}" for result in failed]
        head = f"{first.kind} {first.part!r} fails {len(failed)} of {len(done)} checks:"
        raise AssertionError("\n".join([head, *lines]))
    return done


def relative_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a part of the largest value; infinite where one is not finite."""
    one, other = one.float(), other.float()
    if one.shape != other.shape or not (one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    if not one.numel():
        return 0.0
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def shortlist(names: Sequence[str], shown: int = 5) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _unforeseen(error: Exception, factory: Factory) -> str:
    """An error from within a part, and the last line of the part's own module that it came by."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == part_options.module_file(factory)]
    last = (own or frames)[-1] if frames else None
    where = f" in {Path(last.filename).name}, line {last.lineno}" if last else ""
    text = " ".join(str(error).split())
    return str(
        CheckFailed(
            expected="no error",
            came=f"{type(error).__name__}: {text}{where}",
            mend="make that line work for what this check gives it",
        )
    )
