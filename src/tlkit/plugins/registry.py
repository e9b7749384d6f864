"""The registered parts: found by kind and name, checked, and made.

Every plugin has a pluggy manager of its own, so that one whose event hook raises does not keep the others
from being called. (In a shared manager, an implementation that raises ends the call for all.)
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pluggy

from tlkit.errors import PluginError, TlkitError, close_matches
from tlkit.parts.task import Task
from tlkit.plugins import options
from tlkit.plugins.disabled import VARIABLE
from tlkit.plugins.options import Factory

#: What can be registered, and the hook it is registered through.
HOOKS = {
    "backbone": "tlkit_backbones",
    "head": "tlkit_heads",
    "loss": "tlkit_losses",
    "augmentation": "tlkit_augmentations",
    "freeze-policy": "tlkit_freeze_policies",
    "source": "tlkit_sources",
    "engine": "tlkit_engines",
}
KINDS = tuple(HOOKS)
#: Parts of plugins that tlkit's extras install: their kind, how their names begin, and the extra.
EXTRAS = (
    ("backbone", "efficientnet-lite", "lite"),
    ("backbone", "transformers:", "huggingface"),
    ("source", "datasets", "huggingface"),
)


@dataclass(frozen=True)
class RegisteredPart:
    """A part and where it comes from.

    Attributes:
        kind: one of KINDS.
        name: its name in recipes.
        factory: makes it; its keyword-only parameters are the part's options.
        owner: the distribution that registered it, "tlkit" for built-ins.
        version: the owner's version.
        tasks: of a head or loss: the tasks that it is meant for.
    """

    kind: str
    name: str
    factory: Factory
    owner: str
    version: str
    tasks: Sequence[Task] = ("multiclass",)

    def code(self) -> bytes:
        """Returns the file that defines its factory, so that an edited plugin gets other cached features."""
        file = options.module_file(self.factory)
        return Path(file).read_bytes() if file and Path(file).is_file() else b""


@dataclass(frozen=True)
class Family:
    """Parts of one kind with open-ended names.

    Attributes:
        kind: one of KINDS.
        name: the family's name.
        lookup: maps a part's name to its factory, or None.
        names: returns the names it knows, for close matches.
        owner: the distribution that registered it, "tlkit" for built-ins.
        version: the owner's version.
    """

    kind: str
    name: str
    lookup: Callable[[str], Factory | None]
    names: Callable[[], Iterable[str]]
    owner: str
    version: str


@dataclass(frozen=True)
class PluginState:
    """A plugin that was found, and whether it is loaded.

    Attributes:
        name: the entry point's, or the built-in module's.
        distribution: the distribution that installed it.
        version: the distribution's.
        state: "built-in", "loaded", "disabled" or "broken".
        reason: why it is not loaded, or which of its parts clash with others'.
        parts: (kind, name) of what it registered, families included.
    """

    name: str
    distribution: str
    version: str
    state: Literal["built-in", "loaded", "disabled", "broken"]
    reason: str = ""
    parts: tuple[tuple[str, str], ...] = ()


class Register:
    """What a registering hook is given: collects the parts of one kind from one plugin."""

    def __init__(self, kind: str, owner: str, version: str) -> None:
        self.kind = kind
        self.parts: dict[str, RegisteredPart] = {}
        self.families: dict[str, Family] = {}
        self._origin = (owner, version)

    def __call__(self, name: str, factory: Factory, *, tasks: Sequence[Task] = ("multiclass",)) -> None:
        """Registers `factory` as the part called `name`.

        Args:
            name: its name in recipes.
            factory: makes it; its keyword-only parameters are the part's options.
            tasks: of a head or loss: the tasks that it is meant for. With "multilabel", labels are 0 or 1 for
                each class, int64 ``(B, classes)``, and a logit's sigmoid is its class's probability.
        """
        self._check(name, self.parts, factory)
        self.parts[name] = RegisteredPart(self.kind, name, factory, *self._origin, tasks)

    def family(
        self, name: str, lookup: Callable[[str], Factory | None], names: Callable[[], Iterable[str]]
    ) -> None:
        """Registers parts with open-ended names, such as all of timm.

        Args:
            name: the family's name.
            lookup: maps a part's name to its factory, or None; called only when nobody registered that very
                name, so it may import slow libraries.
            names: returns the names it knows, for close matches; called only for an error message.
        """
        self._check(name, self.families, lookup, names)
        self.families[name] = Family(self.kind, name, lookup, names, *self._origin)

    def _check(self, name: str, registered: Mapping[str, object], *functions: object) -> None:
        if not isinstance(name, str) or not name:
            raise PluginError(f"a {self.kind}'s name must be a string, not {name!r}")
        if name in registered:
            raise PluginError(f"registers {self.kind} {name!r} twice")
        for function in functions:
            if not callable(function):
                raise PluginError(f"{self.kind} {name!r} must be callable, not {function!r}")


@dataclass
class LoadedPlugin:
    """A plugin that works.

    Attributes:
        state: its name, owner and parts.
        manager: a pluggy manager that knows this plugin alone.
        registers: what it registered, by kind.
    """

    state: PluginState
    manager: pluggy.PluginManager
    registers: list[Register]


class Registry:
    """All parts, by kind and name.

    Attributes:
        plugins: every plugin that was found, in a fixed order: built-ins first, then by name.
    """

    def __init__(self, loaded: Sequence[LoadedPlugin], others: Sequence[PluginState] = ()) -> None:
        """Collects the parts of `loaded` plugins; `others` are disabled or broken ones."""
        self._loaded = list(loaded)
        self._parts: dict[str, dict[str, list[RegisteredPart]]] = {kind: {} for kind in KINDS}
        self._families: dict[str, list[Family]] = {kind: [] for kind in KINDS}
        for register in (register for plugin in loaded for register in plugin.registers):
            for name, part in register.parts.items():
                self._parts[register.kind].setdefault(name, []).append(part)
            self._families[register.kind].extend(register.families.values())
        states = [replace(plugin.state, reason=self._clashes(plugin.state)) for plugin in loaded]
        self.plugins = sorted(
            [*states, *others], key=lambda state: (state.state != "built-in", state.distribution, state.name)
        )

    def names(self, kind: str) -> list[str]:
        """Returns the registered names, without those of families."""
        return sorted(self._parts[kind])

    def parts(self, kind: str) -> list[RegisteredPart]:
        """Returns the parts registered by name, sorted by name and owner, clashing ones included."""
        parts = [part for same_name in self._parts[kind].values() for part in same_name]
        return sorted(parts, key=lambda part: (part.name, part.owner))

    def families(self, kind: str) -> list[Family]:
        """Returns the families of open-ended names."""
        return list(self._families[kind])

    def known(self, kind: str) -> list[str]:
        """Returns every name, those of families included, which may import slow libraries."""
        names = set(self._parts[kind])
        for family in self._families[kind]:
            with _attribute_errors(family.owner, f"listing the {family.name} {kind}s"):
                names.update(family.names())
        return sorted(names)

    def find(self, kind: str, name: str) -> RegisteredPart:
        """Returns the part of that kind and name: one registered by that very name, else a family's.

        Raises:
            PluginError: nobody, or more than one plugin, registered it.
        """
        parts = self._parts[kind].get(name) or self._in_families(kind, name)
        if len(parts) > 1:
            owners = " and by ".join(sorted(part.owner for part in parts))
            raise PluginError(
                f"{kind} {name!r} is registered by {owners}: leave one out with {VARIABLE}=<plugin>"
            )
        if not parts:
            raise self._unknown([kind], name)
        return parts[0]

    def search(self, name: str) -> list[RegisteredPart]:
        """Returns the parts called `name` of any kind; families are asked when there are none.

        Raises:
            PluginError: nobody registered it in any kind, or more than one plugin in the same kind.
        """
        parts = [self.find(kind, name) for kind in KINDS if name in self._parts[kind]]
        parts = parts or [self.find(kind, name) for kind in KINDS if self._in_families(kind, name)]
        if not parts:
            raise self._unknown(KINDS, name)
        return parts

    def problems(self, kind: str, name: str, part_options: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns what is wrong with asking for this part with these options: (key, message) pairs.

        The key is "name" when the part cannot be found, else the option's.
        """
        try:
            return options.check(self.find(kind, name).factory, part_options)
        except TlkitError as error:
            return [("name", str(error))]

    def task_problems(self, kind: str, name: str, task: Task) -> list[tuple[str, str]]:
        """Returns whether a head or loss is not meant for a task, as `problems` does."""
        try:
            tasks = self.find(kind, name).tasks
        except TlkitError:  # one of `problems`
            return []
        if task in tasks:
            return []
        fitting = ", ".join(part.name for part in self.parts(kind) if task in part.tasks)
        return [("name", f'{name!r} is not meant for task = "{task}": there are {fitting}')]

    def make(self, kind: str, name: str, part_options: Mapping[str, Any], *args: Any) -> Any:
        """Calls the part's factory with `args` and the options.

        Raises:
            PluginError: no such part, wrong options, or the factory failed.
        """
        part = self.find(kind, name)
        try:
            converted = options.convert(part.factory, part_options)
        except PluginError as error:
            raise PluginError(f"{kind} {name!r}: {error}") from error
        with _attribute_errors(part.owner, f"making {kind} {name!r}"):
            return part.factory(*args, **converted)

    def check_self_contained(
        self, kind: str, name: str, part_options: Mapping[str, Any], factory: Factory | None = None
    ) -> None:
        """Checks that a part would be made without weights or files from elsewhere, as a model folder's must.

        Args:
            kind: one of KINDS.
            name: the part's name.
            part_options: its options.
            factory: makes it; the registered one unless given.

        Raises:
            PluginError: it would not, or there is no such part.
        """
        if ":" in name:
            raise PluginError(f"{kind} {name!r} is an address, and a model folder has its own weights")
        factory = factory or self.find(kind, name).factory
        for option, value in (options.without_weights(factory) if kind == "backbone" else {}).items():
            if part_options.get(option, "") != value:
                raise PluginError(f"{kind} {name!r}: {option!r} must be {value!r} in a model folder")
        for option in options.paths(factory):
            if part_options.get(option) not in (None, "none"):
                raise PluginError(f"{kind} {name!r}: {option!r} is a path, and a model folder names none")

    def plugins_of(self, backbone: str, head: str) -> dict[str, str]:
        """Returns the distributions, with versions, of a backbone and a head that are not built in."""
        parts = (self.find("backbone", backbone), self.find("head", head))
        return {part.owner: part.version for part in parts if part.owner != "tlkit"}

    def without_weights(self, backbone: str) -> dict[str, Any]:
        """Returns the options that make that backbone without loading weights."""
        return options.without_weights(self.find("backbone", backbone).factory)

    def needs_root(self, source: str) -> bool:
        """Returns whether a source requires a folder: its factory's `root` has no default."""
        root = inspect.signature(self.find("source", source).factory).parameters.get("root")
        return root is None or root.default is inspect.Parameter.empty

    def notify(self, hook: str, **values: object) -> list[str]:
        """Calls an event hook of every plugin; one that raises does not stop the others.

        Returns:
            ``"<plugin>: <error>"`` for each that raised.
        """
        failures = []
        for plugin in self._loaded:
            call = getattr(plugin.manager.hook, hook)
            try:
                call(**values)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failures.append(f"{plugin.state.name}: {describe_exception(error)}")
        return failures

    def _in_families(self, kind: str, name: str) -> list[RegisteredPart]:
        parts, failures = [], []
        for family in self._families[kind]:
            try:
                with _attribute_errors(family.owner, f"looking for {kind} {name!r} in {family.name}"):
                    factory = family.lookup(name)
            except TlkitError as error:  # another family may still have it
                failures.append(error)
                continue
            if factory is not None:
                parts.append(RegisteredPart(kind, name, factory, family.owner, family.version))
        if failures and not parts:
            raise failures[0]
        return parts

    def _unknown(self, kinds: Sequence[str], name: str) -> PluginError:
        sought = kinds[0] if len(kinds) == 1 else "part"
        names = sorted({known for kind in kinds for known in self.known(kind)})
        hint = self._missing_extra(kinds, name) or close_matches(name, names)
        if not hint and len(kinds) == 1:
            hint = f"; there are {', '.join(self.names(kinds[0])) or 'none'}"
        broken = [
            f"{plugin.name} ({plugin.distribution}): {plugin.reason}"
            for plugin in self.plugins
            if plugin.state == "broken"
        ]
        failed = f"; these plugins failed to load: {'; '.join(broken)}" if broken else ""
        return PluginError(f"no {sought} is called {name!r}{hint}{failed}")

    def _missing_extra(self, kinds: Sequence[str], name: str) -> str:
        """Names the extra that installs the plugin of tlkit's own that has such parts, if it is not there."""
        installed = {plugin.distribution for plugin in self.plugins}
        for kind, start, extra in EXTRAS:
            if kind in kinds and name.startswith(start) and f"tlkit-{extra}" not in installed:
                return f": pip install 'tlkit[{extra}]' brings it"
        return ""

    def _clashes(self, state: PluginState) -> str:
        clashes = []
        for kind, name in state.parts:
            owners = Counter(part.owner for part in self._parts[kind].get(name, ()))
            owners[state.distribution] -= 1
            clashes += [f"{kind} {name!r} is {owner}'s too" for owner in sorted(owners.elements())]
        return "; ".join(clashes)


def describe_exception(error: BaseException) -> str:
    """Returns an exception on one line, with its type unless it is tlkit's own."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TlkitError) else f"{type(error).__name__}: {text}"


@contextmanager
def _attribute_errors(owner: str, doing: str) -> Iterator[None]:
    """Names the owner of a plugin's function that raises an unexpected exception."""
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:
        raise PluginError(f"{doing} failed in {owner}: {describe_exception(error)}") from error
