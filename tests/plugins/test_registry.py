"""The registry: parts found by kind and name, with the owner of each clash and each failure."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from plugin_packages import HEAD, states

from tlkit.data.views import View
from tlkit.errors import PluginError, WeightsError
from tlkit.experiment.planning import training_views
from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import KINDS
from tlkit.recipe.schema import PartSpec
from tlkit.training.history import EpochMetrics

Install = Callable[..., None]

SOURCE = """
@tlkit.hookimpl
def tlkit_sources(register):
    register({name!r}, lambda root: root)
"""
OBSERVER = """
import tlkit

seen = []

@tlkit.hookimpl
def tlkit_epoch_ended(run, epoch):
    seen.append((run, epoch))
    {action}
"""
FAMILY = """
import tlkit

calls = []

@tlkit.hookimpl
def tlkit_backbones(register):
    register("exact", lambda: "exact")
    register.family({family!r}, lookup, names)

def lookup(name):
    calls.append(name)
    {lookup}

def names():
    calls.append("names")
    return ["net18", "net50"]
"""
NETS = "return (lambda: name) if name.startswith('net') else None"


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_clash_names_both_owners_whatever_the_order(install: Install, names: tuple[str, str]) -> None:
    for name in names:
        install(name, HEAD.format(name="same") + SOURCE.format(name=name))
    registry = load_registry([])
    with pytest.raises(PluginError, match="head 'same' is registered by tlkit-one and by tlkit-two: leave"):
        registry.find("head", "same")
    assert registry.make("source", "one", {}, 1) == registry.make("source", "two", {}, 1) == 1
    assert list(states(registry)) == ["one", "two"]
    assert [part.owner for part in registry.parts("head")] == ["tlkit-one", "tlkit-two"]
    assert states(registry)["one"].reason == "head 'same' is tlkit-two's too"
    assert states(registry)["two"].reason == "head 'same' is tlkit-one's too"


def test_a_built_in_name_cannot_be_replaced(install: Install) -> None:
    install("builtin", HEAD.format(name="linear"), distribution="elsewhere")
    install("usurper", HEAD.format(name="linear"))
    registry = load_registry(["tlkit_test_builtin"])
    with pytest.raises(PluginError, match="registered by elsewhere and by tlkit and by tlkit-usurper"):
        registry.find("head", "linear")
    assert registry.plugins[0].state == "built-in"
    assert "head 'linear' is tlkit-usurper's too" in registry.plugins[0].reason


def test_a_name_in_two_kinds_is_found_in_both(install: Install) -> None:
    install("one", HEAD.format(name="same"))
    install("two", HEAD.format(name="same").replace("tlkit_heads", "tlkit_sources"))
    assert [part.kind for part in load_registry([]).search("same")] == ["head", "source"]


def test_the_toolkits_own_parts_clash_with_nobody() -> None:
    registry = load_registry()
    kinds = set(KINDS) - {"engine"}  # this process computes without one
    assert all(registry.names(kind) or registry.families(kind) for kind in kinds)
    assert all(not state.reason for state in registry.plugins if state.state == "built-in")


def test_a_family_is_asked_only_when_needed(install: Install) -> None:
    install("zoo", FAMILY.format(family="zoo", lookup=NETS))
    registry = load_registry([])
    calls = sys.modules["tlkit_test_zoo"].calls
    assert registry.make("backbone", "exact", {}) == "exact"
    assert registry.names("backbone") == ["exact"]
    assert calls == []
    assert registry.make("backbone", "net50", {}) == "net50"
    assert calls == ["net50"]
    assert [family.name for family in registry.families("backbone")] == ["zoo"]
    assert registry.known("backbone") == ["exact", "net18", "net50"]
    assert registry.search("net18")[0].owner == "tlkit-zoo"
    for find in (lambda: registry.find("backbone", "nte50"), lambda: registry.search("nte50")):
        with pytest.raises(PluginError, match=r"is called 'nte50' .did you mean 'net50'"):
            find()


def test_two_families_with_one_name_clash(install: Install) -> None:
    install("zoo", FAMILY.format(family="zoo", lookup=NETS))
    install("park", FAMILY.format(family="park", lookup=NETS).replace("exact", "other"))
    with pytest.raises(PluginError, match="'net50' is registered by tlkit-park and by tlkit-zoo"):
        load_registry([]).find("backbone", "net50")


def test_a_family_that_fails_names_its_owner_and_does_not_hide_another(install: Install) -> None:
    install("zoo", FAMILY.format(family="zoo", lookup="raise OSError('offline')"))
    with pytest.raises(PluginError, match="'net50' in zoo failed in tlkit-zoo: OSError: offline"):
        load_registry([]).find("backbone", "net50")
    install("park", FAMILY.format(family="park", lookup=NETS).replace("exact", "other"))
    assert load_registry([]).find("backbone", "net50").owner == "tlkit-park"


def test_a_factory_that_fails_names_its_owner(install: Install) -> None:
    source = HEAD.format(name="{0}").replace("return", "raise {1} #")
    install("one", source.format("foreign", "ValueError('no')"))
    install("two", source.format("own", "tlkit.WeightsError('gone')"))
    registry = load_registry([])
    with pytest.raises(
        PluginError, match="making head 'foreign' failed in tlkit-one: ValueError: no"
    ) as error:
        registry.make("head", "foreign", {}, None, 2)
    assert isinstance(error.value.__cause__, ValueError)
    with pytest.raises(WeightsError, match=r"^gone$"):
        registry.make("head", "own", {}, None, 2)


def test_an_observer_that_raises_does_not_stop_the_others(install: Install) -> None:
    install("a", OBSERVER.format(action="raise SystemExit(1)"))
    install("b", OBSERVER.format(action="1 / 0"))
    install("c", OBSERVER.format(action="pass"))
    metrics = EpochMetrics(3, 1.0, 1.0, 0.5, 0.5, lr=0.1, seconds=1.0)
    failures = load_registry([]).notify(
        "tlkit_epoch_ended", run="run", phase="phase", epoch=3, metrics=metrics
    )
    assert failures == ["a: SystemExit: 1", "b: ZeroDivisionError: division by zero"]
    assert all(sys.modules[f"tlkit_test_{name}"].seen == [("run", 3)] for name in "abc")


def test_views_of_an_edited_augmentation_have_another_identity(install: Install, tmp_path: Path) -> None:
    """Features that were cached before the edit are not used."""
    code = """
        import tlkit

        @tlkit.hookimpl
        def tlkit_augmentations(register):
            register("mirrored", mirrored)

        def mirrored(preprocess):
            return {step}
    """
    phase = SimpleNamespace(augmentation=PartSpec(name="mirrored"), views=2, name="fine-tune")
    identities = []
    install("mirrored", "")
    for step in ("'before'", "'before'", "'after'"):
        (tmp_path / "site" / "tlkit_test_mirrored.py").write_text(textwrap.dedent(code.format(step=step)))
        sys.modules.pop("tlkit_test_mirrored", None)
        importlib.invalidate_caches()
        views = training_views(cast("Any", None), cast("Any", phase), View(Preprocess()), load_registry())
        identities.append(views[1].identity)
    assert identities[0] == identities[1] != identities[2]
