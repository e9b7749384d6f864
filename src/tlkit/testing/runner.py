"""Runs checks on a part and collects their results."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from tlkit.errors import PluginError, TlkitError
from tlkit.parts.task import Task
from tlkit.plugins import options
from tlkit.plugins.loader import load_registry
from tlkit.plugins.options import Factory
from tlkit.plugins.registry import Registry

Outcome = Literal["passed", "failed", "not applicable"]
#: The classes of every classifier that a check makes.
CLASSES = ("a", "b", "c")
#: The largest relative difference where only the order of floating-point operations differs.
ROUNDING_TOLERANCE = 1e-3
#: The largest relative difference where the same operations run in the same order.
EXACT_TOLERANCE = 1e-5

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check.

    Attributes:
        kind: the part's kind, one of `tlkit.plugins.registry.KINDS`.
        part: the part's name.
        check: the check's name.
        outcome: "passed", "failed" or "not applicable".
        message: of a failed check, what was expected, what it got and how to fix it; otherwise a remark, or
            empty.
    """

    kind: str
    part: str
    check: str
    outcome: Outcome
    message: str = ""


class CheckFailed(Exception):
    """A part does not pass a check."""

    def __init__(self, *, expected: str, got: str, fix: str) -> None:
        """Makes one message of what was expected, what the check got, and how to fix the part."""
        super().__init__(f"expected {expected}; got {got}; to fix: {fix}")


class NotApplicable(Exception):
    """A check does not apply to this part; the text is the reason."""


#: Raises `CheckFailed` or `NotApplicable`; may return a remark.
Check = Callable[[Subject], str | None]


@dataclass
class PartUnderTest:
    """A part to check, and a registry of the other parts that checks need.

    Attributes:
        kind: one of `tlkit.plugins.registry.KINDS`.
        name: the part's name.
        factory: makes the part.
        options: the part's options, as in a recipe.
        registry: all registered parts.
        tasks: of a head or loss: the tasks that it is meant for.
    """

    kind: str
    name: str
    factory: Factory
    options: Mapping[str, object] = field(default_factory=dict)
    registry: Registry = field(default_factory=load_registry)
    tasks: Sequence[Task] = ("multiclass",)

    @classmethod
    def of(
        cls,
        kind: str,
        part: str | Factory,
        part_options: Mapping[str, object] | None = None,
        registry: Registry | None = None,
    ) -> PartUnderTest:
        """Returns a part by its registered name, or one that is made by an unregistered factory.

        Raises:
            PluginError: no part of that name is registered, or an option is unknown, missing or of the
                wrong type.
        """
        registry = registry or load_registry()
        tasks: Sequence[Task] = ("multiclass",)
        if isinstance(part, str):
            registered = registry.find(kind, part)
            name, factory, tasks = part, registered.factory, registered.tasks
        else:
            name, factory = getattr(part, "__name__", type(part).__name__), part
        for key, problem in options.check(factory, part_options or {}):
            raise PluginError(f"{kind} {name!r}: option {key!r} {problem}")
        return cls(kind, name, factory, dict(part_options or {}), registry, tasks)

    def build(self, *args: object) -> Any:
        """Makes the part anew: calls the factory with `args` and the options."""
        return self.factory(*args, **options.convert(self.factory, self.options))

    def make(self, kind: str, name: str, part_options: Mapping[str, Any], *args: Any) -> Any:
        """Makes a part as `Registry.make` does; the name of the part under test means that part."""
        if (kind, name) == (self.kind, self.name):
            return self.factory(*args, **options.convert(self.factory, part_options))
        return self.registry.make(kind, name, part_options, *args)

    def check_self_contained(self, kind: str, name: str, part_options: Mapping[str, Any]) -> None:
        """Checks the part as `Registry.check_self_contained` does."""
        factory = self.factory if (kind, name) == (self.kind, self.name) else None
        self.registry.check_self_contained(kind, name, part_options, factory)


def run_check(part: PartUnderTest, check: Check[Subject], subject: Subject) -> Result:
    """Runs one check; any exception that it raises becomes its result."""
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
        outcome, message = "failed", _unexpected(error, part.factory)
    return Result(part.kind, part.name, name, outcome, message)


def run_checks(
    part: PartUnderTest, setup: Callable[[PartUnderTest], Subject], checks: Sequence[Check[Subject]]
) -> Iterator[Result]:
    """Yields the result of each check as soon as it ran.

    The first two, on the part's options and on making it, belong to every kind; they are the only ones if the
    part cannot be made.

    Args:
        part: the part to check.
        setup: makes what the checks are called with.
        checks: the checks of the part's kind.

    Raises:
        TlkitError: the part refuses its options or its root, which is the user's mistake.
    """
    yield run_check(part, options_are_declared, part)
    try:
        subject = setup(part)
    except TlkitError:
        raise
    except Exception as error:
        yield Result(part.kind, part.name, "can be made", "failed", _unexpected(error, part.factory))
        return
    yield Result(part.kind, part.name, "can be made", "passed")
    for check in checks:
        yield run_check(part, check, subject)


#: By kind, the arguments that a factory is called with by position.
POSITIONAL_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "backbone": (),
    "head": ("backbone", "classes"),
    "loss": ("classes", "counts"),
    "augmentation": ("preprocess",),
    "freeze-policy": ("classifier",),
    "source": ("root",),
    "engine": (),
}


def options_are_declared(part: PartUnderTest) -> str:
    """Every option is keyword-only and has a type annotation, so that mistakes in a recipe are found."""
    factory, bound = part.factory, 0
    while isinstance(factory, partial):
        bound += len(factory.args)
        factory = factory.func
    arguments = POSITIONAL_ARGUMENTS[part.kind]
    positional = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    extra = positional[bound + len(arguments) :]
    if extra:
        raise CheckFailed(
            expected=f"keyword-only options after {len(arguments)} positional arguments",
            got=f"{', '.join(extra)} as positional arguments, which a recipe cannot set",
            fix=f"put a * in front of the first option: ({', '.join((*arguments, '*', *extra))})",
        )
    declared = options.describe(part.factory)
    untyped = [option.name for option in declared if option.type_text == "any"]
    if untyped:
        raise CheckFailed(
            expected="a type annotation for every option, which recipes are validated against",
            got=f"none for {', '.join(untyped)}",
            fix=f"annotate it, for example {untyped[0]}: int",
        )
    undocumented = [option.name for option in declared if not option.doc]
    return f"not described in the docstring's Args: {', '.join(undocumented)}" if undocumented else ""


def raise_for_failures(results: Iterator[Result]) -> list[Result]:
    """Collects all results.

    Raises:
        AssertionError: at least one check failed; all failures are listed.
    """
    collected = list(results)
    failed = [result for result in collected if result.outcome == "failed"]
    if failed:
        first = failed[0]
        lines = [f"  {result.check}: {result.message}" for result in failed]
        head = f"{first.kind} {first.part!r} fails {len(failed)} of {len(collected)} checks:"
        raise AssertionError("\n".join([head, *lines]))
    return collected


def relative_difference(values: Tensor, reference: Tensor) -> float:
    """Returns the largest absolute difference, divided by the largest absolute value of `reference`.

    It is infinite where the shapes differ or a value is not finite.
    """
    values, reference = values.float(), reference.float()
    if values.shape != reference.shape or not (values.isfinite().all() and reference.isfinite().all()):
        return float("inf")
    if not values.numel():
        return 0.0
    return float((values - reference).abs().max() / reference.abs().max().clamp(min=1e-12))


def _unexpected(error: Exception, factory: Factory) -> str:
    """Describes an error raised inside a part, with the last line of the part's own code on its way."""
    text = " ".join(str(error).split())
    return str(
        CheckFailed(
            expected="no error",
            got=f"{type(error).__name__}: {text}{_where(error, factory)}",
            fix="make this line work for the arguments that the check calls it with",
        )
    )


def _where(error: Exception, factory: Factory) -> str:
    """Returns an error's last line in the part's own code, or outside of this suite and torch."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    suite = Path(__file__).parent
    outside = [frame for frame in frames if not frame[0].is_relative_to(suite)]
    code = _own_code(factory)
    own = [frame for frame in outside if code and frame[0].is_relative_to(code)]
    others = [frame for frame in outside if not frame[0].is_relative_to(Path(torch.__file__).parent)]
    if not (shown := own or others or frames):
        return ""
    file, line = shown[-1]
    return f" in {file.relative_to(code.parent).as_posix() if code and own else file.name}, line {line}"


def _own_code(factory: Factory) -> Path | None:
    """Returns the folder of the package that defines a factory, or its file if that is in no package."""
    file = options.module_file(factory)
    if file is None:
        return None
    code = Path(file)
    while (code.parent / "__init__.py").is_file():
        code = code.parent
    return code
