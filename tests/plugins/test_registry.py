"""Plugins as they are installed: real packages with a real .dist-info on the path."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlkit.data.views import View
from tlkit.errors import PluginError, WeightsError
from tlkit.experiment.planning import training_views
from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import KINDS, PluginState, Registry
from tlkit.recipe.schema import PartSpec

#: The plugins of this repository, which are installed when its tests run.
WORKSPACE = ("tlkit-catsdogs", "tlkit-huggingface")
Install = Callable[..., None]

HEAD = """
import tlkit
from tlkit.hookspecs import hookimpl

@hookimpl
def tlkit_heads(register):
    register({name!r}, head)

def head(backbone, classes, *, hidden: int = 256):
    return backbone, classes, hidden
"""
OBSERVER = """
from tlkit.hookspecs import hookimpl
seen = []

@hookimpl
def tlkit_epoch_ended(run, epoch):
    seen.append((run, epoch))
    {action}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a distribution ``tlkit-<name>`` whose entry point <name> is a module of that source."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules = []

    def write(name: str, source: str, *, entry: str | None = None, distribution: str | None = None) -> None:
        module = f"tlkit_test_{name}"
        modules.append(module)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        distribution = distribution or f"tlkit-{name}"
        info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        points = info / "entry_points.txt"
        known = points.read_text() if points.exists() else "[tlkit]\n"
        points.write_text(f"{known}{name} = {entry or module}\n")
        importlib.invalidate_caches()

    yield write
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(autouse=True)
def _no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins that happen to be installed beside the toolkit stay out of these tests."""
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", ",".join(WORKSPACE))


def load(*builtin: str) -> Registry:
    return load_registry(builtin)


def states(registry: Registry) -> dict[str, PluginState]:
    return {state.name: state for state in registry.plugins if state.distribution not in WORKSPACE}


def test_an_installed_plugin_is_found(install: Install) -> None:
    install("good", HEAD.format(name="wide"))
    registry = load()
    assert states(registry)["good"] == PluginState(
        "good", "tlkit-good", "1.5", "loaded", parts=(("head", "wide"),)
    )
    part = registry.find("head", "wide")
    assert (part.kind, part.name, part.owner, part.version) == ("head", "wide", "tlkit-good", "1.5")
    assert registry.names("head") == ["wide"]
    assert registry.search("wide") == [part]
    assert registry.make("head", "wide", {"hidden": 3}, "backbone", 2) == ("backbone", 2, 3)
    assert registry.problems("head", "wide", {}) == []
    assert registry.problems("head", "wide", {"hiden": 1}) == [
        ("hiden", "is unknown (did you mean 'hidden'?)")
    ]
    with pytest.raises(PluginError, match="head 'wide': option 'hidden' must be int"):
        registry.make("head", "wide", {"hidden": "3"}, "backbone", 2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (
            HEAD.replace("tlkit_heads", "tlkit_haeds").format(name="a"),
            "there is no hook 'tlkit_haeds' (did you mean 'tlkit_heads'",
        ),
        (
            HEAD.replace("register)", "registry)").format(name="a"),
            "{'registry'} are declared in the hookimpl",
        ),
        (HEAD.replace("@hookimpl", "").format(name="a"), "implements no hook: is @tlkit.hookimpl missing?"),
        (HEAD.format(name="a") + "\nhead = 3", "head 'a' must be callable, not 3"),
        (HEAD.format(name=""), "a head's name must be a string, not ''"),
        (
            HEAD.format(name="a").replace("register('a', head)", "[register('a', head) for _ in '12']"),
            "registers head 'a' twice",
        ),
        (
            HEAD.format(name="a") + "\n@hookimpl\ndef tlkit_sources(register):\n    1 / 0",
            "ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_skipped_as_a_whole(
    install: Install, source: str, reason: str
) -> None:
    install("bad", source)
    install("good", HEAD.format(name="wide"))
    registry = load()
    state = states(registry)["bad"]
    assert (state.state, state.distribution, state.parts) == ("broken", "tlkit-bad", ())
    assert reason in state.reason
    assert registry.names("head") == ["wide"]
    with pytest.raises(PluginError) as error:
        registry.find("head", "wode")
    assert "no head is called 'wode' (did you mean 'wide'?)" in str(error.value)
    assert "; these plugins failed to load: bad (tlkit-bad): " in str(error.value)
    assert registry.problems("head", "wode", {}) == [("name", str(error.value))]


def test_the_users_interrupt_is_no_broken_plugin(install: Install) -> None:
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load()


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_clash_names_both_owners_whatever_the_order(install: Install, names: tuple[str, str]) -> None:
    for name in names:
        install(name, HEAD.format(name="same") + f"\n@hookimpl\ndef tlkit_sources(register):\n"
                f"    register({name!r}, lambda root: root)\n")  # fmt: skip
    registry = load()
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
    registry = load("tlkit_test_builtin")
    with pytest.raises(PluginError, match="registered by elsewhere and by tlkit and by tlkit-usurper"):
        registry.find("head", "linear")
    assert registry.plugins[0].state == "built-in"
    assert "head 'linear' is tlkit-usurper's too" in registry.plugins[0].reason


def test_a_built_in_module_that_fails_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError):
        load("tlkit.builtin.no_such_module")


@pytest.mark.parametrize("named", ["one", "tlkit-one", " TLKIT_One ,nobody", "one,,"])
def test_plugins_are_left_out_by_name(install: Install, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    install("one", "raise RuntimeError('must not be imported')")
    install("two", HEAD.format(name="wide"))
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", ",".join([named, *WORKSPACE]))
    registry = load()
    assert states(registry)["one"].state == "disabled"
    assert states(registry)["one"].reason == "TLKIT_DISABLE_PLUGINS"
    assert states(registry)["two"].state == "loaded"


def test_a_star_leaves_out_all_that_is_not_built_in(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one", HEAD.format(name="wide"))
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", "*")
    registry = load("tlkit.builtin.sources")
    assert [state.name for state in registry.plugins if state.state != "disabled"] == ["sources"]
    assert states(registry)["one"].state == "disabled"
    assert registry.names("head") == []
    with pytest.raises(PluginError, match=r"no head is called 'wide'; there are none$"):
        registry.find("head", "wide")


FAMILY = """
from tlkit.hookspecs import hookimpl
calls = []

@hookimpl
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


def test_a_family_is_asked_only_when_needed(install: Install) -> None:
    install("zoo", FAMILY.format(family="zoo", lookup=NETS))
    registry = load()
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
        load().find("backbone", "net50")


def test_a_family_that_fails_names_its_owner_and_hides_no_other(install: Install) -> None:
    install("zoo", FAMILY.format(family="zoo", lookup="raise OSError('offline')"))
    with pytest.raises(PluginError, match="'net50' in zoo failed in tlkit-zoo: OSError: offline"):
        load().find("backbone", "net50")
    install("park", FAMILY.format(family="park", lookup=NETS).replace("exact", "other"))
    assert load().find("backbone", "net50").owner == "tlkit-park"


def test_a_factory_that_fails_names_its_owner(install: Install) -> None:
    source = HEAD.format(name="{0}").replace("return", "raise {1} #")
    install("one", source.format("foreign", "ValueError('no')"))
    install("two", "from tlkit.errors import WeightsError\n" + source.format("own", "WeightsError('gone')"))
    registry = load()
    with pytest.raises(
        PluginError, match="making head 'foreign' failed in tlkit-one: ValueError: no"
    ) as error:
        registry.make("head", "foreign", {}, None, 2)
    assert isinstance(error.value.__cause__, ValueError)
    with pytest.raises(WeightsError, match=r"^gone$"):
        registry.make("head", "own", {}, None, 2)


def test_an_observer_that_raises_stops_nobody(install: Install) -> None:
    install("a", OBSERVER.format(action="raise SystemExit(1)"))
    install("b", OBSERVER.format(action="1 / 0"))
    install("c", OBSERVER.format(action="pass"))
    failed = load().notify("tlkit_epoch_ended", run="run", phase="phase", epoch=3, metrics={})
    assert failed == ["a: SystemExit: 1", "b: ZeroDivisionError: division by zero"]
    assert all(sys.modules[f"tlkit_test_{name}"].seen == [("run", 3)] for name in "abc")


def test_an_entry_point_may_be_an_object(install: Install) -> None:
    source = """
    from tlkit.hookspecs import hookimpl

    class Plugin:
        @hookimpl
        def tlkit_sources(self, register):
            register("one", lambda root: root)

    plugin = Plugin()
    """
    install("one", source, entry="tlkit_test_one:plugin")
    assert load().names("source") == ["one"]


def test_a_name_in_two_kinds_is_found_in_both(install: Install) -> None:
    install("one", HEAD.format(name="same"))
    install("two", HEAD.format(name="same").replace("tlkit_heads", "tlkit_sources"))
    assert [part.kind for part in load().search("same")] == ["head", "source"]


def test_the_toolkits_own_parts_clash_with_nobody() -> None:
    registry = load_registry()
    assert all(registry.names(kind) or registry.families(kind) for kind in KINDS)
    assert all(not state.reason for state in registry.plugins if state.state == "built-in")


def test_views_of_an_edited_augmentation_are_others(install: Install, tmp_path: Path) -> None:
    """Kept features of what it drew before are not found."""
    code = """
        import tlkit

        @tlkit.hookimpl
        def tlkit_augmentations(register):
            register("mirrored", mirrored)

        def mirrored(preprocess):
            return {step}
    """
    phase = SimpleNamespace(augmentation=PartSpec(name="mirrored"), views=2, name="fine-tune")
    found = []
    install("mirrored", "")
    for step in ("'before'", "'before'", "'after'"):
        (tmp_path / "site" / "tlkit_test_mirrored.py").write_text(textwrap.dedent(code.format(step=step)))
        sys.modules.pop("tlkit_test_mirrored", None)
        importlib.invalidate_caches()
        views = training_views(cast("Any", None), cast("Any", phase), View(Preprocess()), load_registry())
        found.append(views[1].identity)
    assert found[0] == found[1] != found[2]
