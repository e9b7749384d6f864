"""Loads plugins: the toolkit's own parts first, then installed entry points, each by itself."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pluggy

from tlkit.errors import PluginError, close_matches
from tlkit.plugins import hookspecs
from tlkit.plugins.disabled import VARIABLE, is_disabled
from tlkit.plugins.registry import HOOKS, LoadedPlugin, PluginState, Register, Registry, describe_exception

#: The entry-point group of plugins.
GROUP = "tlkit"
#: Named, not imported: the toolkit's own parts are plugins like any other.
BUILTIN = tuple(
    f"tlkit.builtin.{name}"
    for name in (
        *("backbones", "heads", "losses", "augmentations", "freeze_policies"),
        *("sources", "csv_file", "parquet", "webdataset"),
    )
)


def load_registry(builtin: Sequence[str] = BUILTIN) -> Registry:
    """Loads the built-in modules and the installed plugins, anew on each call.

    A plugin that fails is reported in the registry's `plugins` and skipped as a whole; a built-in module that
    fails is a bug, and raises.
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
            others.append(replace(state, state="disabled", reason=VARIABLE))
            continue
        try:
            loaded.append(_load(state, entry.load))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that calls sys.exit() is no better than one that raises
            others.append(replace(state, state="broken", reason=describe_exception(error)))
    return Registry(loaded, others)


def make_manager(plugin: object, name: str) -> pluggy.PluginManager:
    """Returns a pluggy manager for one plugin, which may be a module or an object with hook methods.

    Raises:
        PluginError: a hook is unknown, or takes other arguments.
    """
    manager = pluggy.PluginManager("tlkit")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        text = describe_exception(error)
        raise PluginError(f"{text}; is it written for a newer tlkit than this one?") from error
    hooks = [hook for hook in vars(hookspecs) if hook.startswith("tlkit_")]
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():  # pluggy itself accepts a misspelt hook silently
            raise PluginError(f"there is no hook {caller.name!r}{close_matches(caller.name, hooks)}")
    return manager


def _load(state: PluginState, load: Callable[[], object]) -> LoadedPlugin:
    plugin = load()
    manager = make_manager(plugin, state.name)
    if not manager.get_hookcallers(plugin):
        raise PluginError("implements no hook: is @tlkit.hookimpl missing?")
    registers = []
    for kind, hook in HOOKS.items():
        register = Register(kind, state.distribution, state.version)
        getattr(manager.hook, hook)(register=register)
        registers.append(register)
    parts = tuple(
        (register.kind, name) for register in registers for name in [*register.parts, *register.families]
    )
    return LoadedPlugin(replace(state, parts=parts), manager, registers)


def _origin(entry: importlib.metadata.EntryPoint) -> tuple[str, str, str]:
    """Returns distribution, version and name; a half-removed distribution may lack the first two."""
    distribution = entry.dist
    name = (distribution and distribution.name) or entry.name
    return name, (distribution and distribution.version) or "", entry.name
