"""Finds plugins and what they register: the toolkit's own parts first, then entry points.

Every plugin has a manager of its own, so that one that fails to load, to register or to observe
takes nobody with it. (In a shared one, an implementation that raises ends the call for all.)
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy

from tlkit import hookspecs, options
from tlkit.disabling import DISABLE, is_disabled
from tlkit.errors import PluginError, TlkitError, close_matches
from tlkit.options import Factory

#: What can be registered, and the hook it is registered through.
HOOKS = {
    "backbone": "tlkit_backbones",
    "head": "tlkit_heads",
    "augmentation": "tlkit_augmentations",
    "freeze-policy": "tlkit_freeze_policies",
    "source": "tlkit_sources",
}
KINDS = tuple(HOOKS)
GROUP = "tlkit"
#: Named, not imported: the toolkit's own parts are plugins like any other.
BUILTIN = tuple(
    f"tlkit.builtin.{name}" for name in ("backbones", "heads", "augmentations", "freeze_policies", "sources")
)


@dataclass(frozen=True)
class RegisteredPart:
    """A part and where it comes from.

    Attributes:
        kind: one of KINDS.
        name: what recipes call it.
        factory: makes it; its keyword-only parameters are the part's options.
        owner: the distribution that registered it, "tlkit" for built-ins.
        version: the owner's version.
    """

    kind: str
    name: str
    factory: Factory
    owner: str
    version: str

    def code(self) -> bytes:
        """The file that makes it: an edited plugin must not find what it made before."""
        file = options.module_file(self.factory)
        return Path(file).read_bytes() if file and Path(file).is_file() else b""


@dataclass(frozen=True)
class Family:
    """Parts of one kind whose names are open-ended.

    Attributes:
        kind: one of KINDS.
        name: what people call the family.
        lookup: from a part's name to its factory, or None.
        names: the names it knows, for close matches.
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
    """What became of a plugin.

    Attributes:
        name: the entry point's, or the built-in module's.
        distribution: what installed it.
        version: the distribution's.
        state: "built-in", "loaded", "disabled" or "broken".
        reason: why it is not loaded, or which of its parts clash with others'.
        parts: (kind, name) of what it registered, families included.
    """

    name: str
    distribution: str
    version: str
    state: str
    reason: str = ""
    parts: tuple[tuple[str, str], ...] = ()


class Register:
    """What a registering hook is handed: takes parts of one kind from one plugin."""

    def __init__(self, kind: str, owner: str, version: str) -> None:
        self.kind = kind
        self.parts: dict[str, RegisteredPart] = {}
        self.families: dict[str, Family] = {}
        self._origin = (owner, version)

    def __call__(self, name: str, factory: Factory) -> None:
        """Registers `factory` as the part called `name`."""
        self._check(name, self.parts, factory)
        self.parts[name] = RegisteredPart(self.kind, name, factory, *self._origin)

    def family(
        self, name: str, lookup: Callable[[str], Factory | None], names: Callable[[], Iterable[str]]
    ) -> None:
        """Registers parts with open-ended names, such as all of timm.

        Args:
            name: what people call the family.
            lookup: from a part's name to its factory, or None; called only when nobody registered
                that very name, so it may import much.
            names: the names it knows, for close matches; called only for an error message.
        """
        self._check(name, self.families, lookup, names)
        self.families[name] = Family(self.kind, name, lookup, names, *self._origin)

    def _check(self, name: str, registered: Mapping[str, Any], *functions: object) -> None:
        if not isinstance(name, str) or not name:
            raise PluginError(f"a {self.kind}'s name must be a string, not {name!r}")
        if name in registered:
            raise PluginError(f"registers {self.kind} {name!r} twice")
        for function in functions:
            if not callable(function):
                raise PluginError(f"{self.kind} {name!r} must be callable, not {function!r}")


@dataclass
class _Loaded:
    """A plugin that works: its manager and what it registered."""

    state: PluginState
    manager: pluggy.PluginManager
    registers: list[Register]


class Registry:
    """The parts that can be had, by kind and name.

    Attributes:
        plugins: every plugin that was found, in a fixed order: built-ins, then by name.
    """

    def __init__(self, loaded: Sequence[_Loaded], others: Sequence[PluginState] = ()) -> None:
        self._loaded = list(loaded)
        self._parts: dict[str, dict[str, list[RegisteredPart]]] = {kind: {} for kind in KINDS}
        self._families: dict[str, list[Family]] = {kind: [] for kind in KINDS}
        for register in (register for plugin in loaded for register in plugin.registers):
            for name, part in register.parts.items():
                self._parts[register.kind].setdefault(name, []).append(part)
            self._families[register.kind].extend(register.families.values())
        states = [replace(plugin.state, reason=self._clashes(plugin.state)) for plugin in loaded]
        self.plugins = sorted(
            [*states, *others], key=lambda each: (each.state != "built-in", each.distribution, each.name)
        )

    def names(self, kind: str) -> list[str]:
        """The registered names, without the families'."""
        return sorted(self._parts[kind])

    def parts(self, kind: str) -> list[RegisteredPart]:
        """What is registered by name, by name and owner; those that clash are all there."""
        found = [part for parts in self._parts[kind].values() for part in parts]
        return sorted(found, key=lambda part: (part.name, part.owner))

    def families(self, kind: str) -> list[Family]:
        """The families of open-ended names."""
        return list(self._families[kind])

    def known(self, kind: str) -> list[str]:
        """Every name there is, the families' included: asks them all, which may import much."""
        names = set(self._parts[kind])
        for family in self._families[kind]:
            with _blaming(family.owner, f"listing the {family.name} {kind}s"):
                names.update(family.names())
        return sorted(names)

    def find(self, kind: str, name: str) -> RegisteredPart:
        """The part of that kind and name: one registered by that very name, else a family's.

        Raises:
            PluginError: nobody, or more than one plugin, registered it.
        """
        found = self._parts[kind].get(name) or self._in_families(kind, name)
        if len(found) > 1:
            owners = " and by ".join(sorted(part.owner for part in found))
            raise PluginError(
                f"{kind} {name!r} is registered by {owners}: leave one out with {DISABLE}=<plugin>"
            )
        if not found:
            raise self._unknown([kind], name)
        return found[0]

    def search(self, name: str) -> list[RegisteredPart]:
        """The parts called `name`, whatever their kind; families are asked when there are none.

        Raises:
            PluginError: nobody registered it in any kind, or more than one plugin in the same kind.
        """
        exact = [self.find(kind, name) for kind in KINDS if name in self._parts[kind]]
        found = exact or [self.find(kind, name) for kind in KINDS if self._in_families(kind, name)]
        if not found:
            raise self._unknown(KINDS, name)
        return found

    def problems(self, kind: str, name: str, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with asking for this part with these options: (key, message) pairs.

        The key is "name" when the part cannot be had, else the option's.
        """
        try:
            return options.check(self.find(kind, name).factory, given)
        except TlkitError as error:
            return [("name", str(error))]

    def make(self, kind: str, name: str, given: Mapping[str, Any], *args: Any) -> Any:
        """Calls the part's factory with `args` and the options.

        Raises:
            PluginError: no such part, wrong options, or the factory failed.
        """
        part = self.find(kind, name)
        try:
            converted = options.convert(part.factory, given)
        except PluginError as error:
            raise PluginError(f"{kind} {name!r}: {error}") from error
        with _blaming(part.owner, f"making {kind} {name!r}"):
            return part.factory(*args, **converted)

    def without_weights(self, backbone: str) -> dict[str, Any]:
        """The options that make that backbone without loading weights."""
        return options.without_weights(self.find("backbone", backbone).factory)

    def needs_root(self, source: str) -> bool:
        """Whether a source cannot do without a folder: its factory's `root` has no default."""
        root = inspect.signature(self.find("source", source).factory).parameters.get("root")
        return root is None or root.default is inspect.Parameter.empty

    def notify(self, hook: str, **kwargs: Any) -> list[str]:
        """Calls an observing hook on every plugin; one that raises does not stop the others.

        Returns:
            ``"<plugin>: <error>"`` for each that raised.
        """
        failed = []
        for plugin in self._loaded:
            call = getattr(plugin.manager.hook, hook)
            try:
                call(**kwargs)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failed.append(f"{plugin.state.name}: {_say(error)}")
        return failed

    def _in_families(self, kind: str, name: str) -> list[RegisteredPart]:
        found, failures = [], []
        for family in self._families[kind]:
            try:
                with _blaming(family.owner, f"looking for {kind} {name!r} in {family.name}"):
                    factory = family.lookup(name)
            except TlkitError as error:  # must not keep another family from having it
                failures.append(error)
                continue
            if factory is not None:
                found.append(RegisteredPart(kind, name, factory, family.owner, family.version))
        if failures and not found:
            raise failures[0]
        return found

    def _unknown(self, kinds: Sequence[str], name: str) -> PluginError:
        what = kinds[0] if len(kinds) == 1 else "part"
        known = sorted({known for kind in kinds for known in self.known(kind)})
        hint = close_matches(name, known)
        if not hint and len(kinds) == 1:
            hint = f"; there are {', '.join(self.names(kinds[0])) or 'none'}"
        broken = [
            f"{state.name} ({state.distribution}): {state.reason}"
            for state in self.plugins
            if state.state == "broken"
        ]
        failed = f"; these plugins failed to load: {'; '.join(broken)}" if broken else ""
        return PluginError(f"no {what} is called {name!r}{hint}{failed}")

    def _clashes(self, state: PluginState) -> str:
        clashes = []
        for kind, name in state.parts:
            owners = Counter(part.owner for part in self._parts[kind].get(name, ()))
            owners[state.distribution] -= 1
            clashes += [f"{kind} {name!r} is {owner}'s too" for owner in sorted(owners.elements())]
        return "; ".join(clashes)


def load_registry(builtin: Sequence[str] = BUILTIN) -> Registry:
    """Loads the built-in modules and the installed plugins, anew on each call.

    A plugin that fails is reported in the registry's `plugins` and skipped as a whole; a built-in
    one is a fault of the toolkit's and raises.
    """
    version = importlib.metadata.version("tlkit")
    loaded, others = [], []
    for module in builtin:
        state = PluginState(module.rpartition(".")[2], "tlkit", version, "built-in")
        loaded.append(_load(state, partial(importlib.import_module, module)))
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=_origin):
        distribution, version, _ = _origin(entry)
        state = PluginState(entry.name, distribution, version, "loaded")
        if is_disabled(entry.name, distribution):
            others.append(replace(state, state="disabled", reason=DISABLE))
            continue
        try:
            loaded.append(_load(state, entry.load))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that calls sys.exit() is no better than one that raises
            others.append(replace(state, state="broken", reason=_say(error)))
    return Registry(loaded, others)


def _origin(entry: importlib.metadata.EntryPoint) -> tuple[str, str, str]:
    """Distribution, version and name; a half-removed distribution may lack the first two."""
    found = entry.dist
    return (found and found.name) or entry.name, (found and found.version) or "", entry.name


def _load(state: PluginState, load: Callable[[], object]) -> _Loaded:
    manager = pluggy.PluginManager("tlkit")
    manager.add_hookspecs(hookspecs)
    plugin = load()
    try:
        manager.register(plugin, state.name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{_say(error)}; is it written for a newer tlkit than this one?") from error
    callers = manager.get_hookcallers(plugin)
    if not callers:
        raise PluginError("implements no hook: is @tlkit.hookimpl missing?")
    known = [name for name in vars(hookspecs) if name.startswith("tlkit_")]
    for caller in callers:
        if not caller.has_spec():  # pluggy itself says nothing of a misspelt hook
            raise PluginError(f"there is no hook {caller.name!r}{close_matches(caller.name, known)}")
    registers = []
    for kind, hook in HOOKS.items():
        register = Register(kind, state.distribution, state.version)
        getattr(manager.hook, hook)(register=register)
        registers.append(register)
    parts = tuple((each.kind, name) for each in registers for name in [*each.parts, *each.families])
    return _Loaded(replace(state, parts=parts), manager, registers)


@contextmanager
def _blaming(owner: str, doing: str) -> Iterator[None]:
    """Names the owner of a plugin's function that raises something unforeseen."""
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:
        raise PluginError(f"{doing} failed in {owner}: {_say(error)}") from error


def _say(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, TlkitError) else f"{type(error).__name__}: {text}"
