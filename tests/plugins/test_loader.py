"""Plugins as they are installed: found, loaded each by itself, or reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plugin_packages import HEAD, WORKSPACE, states

from tlkit.errors import PluginError
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import PluginState

Install = Callable[..., None]


def test_an_installed_plugin_is_found(install: Install) -> None:
    install("good", HEAD.format(name="wide"))
    registry = load_registry([])
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
        (
            HEAD.replace("@tlkit.hookimpl", "").format(name="a"),
            "implements no hook: is @tlkit.hookimpl missing?",
        ),
        (HEAD.format(name="a") + "\nhead = 3", "head 'a' must be callable, not 3"),
        (HEAD.format(name=""), "a head's name must be a string, not ''"),
        (
            HEAD.format(name="a").replace("register('a', head)", "[register('a', head) for _ in '12']"),
            "registers head 'a' twice",
        ),
        (
            HEAD.format(name="a") + "\n@tlkit.hookimpl\ndef tlkit_sources(register):\n    1 / 0",
            "ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_skipped_as_a_whole(
    install: Install, source: str, reason: str
) -> None:
    install("bad", source)
    install("good", HEAD.format(name="wide"))
    registry = load_registry([])
    state = states(registry)["bad"]
    assert (state.state, state.distribution, state.parts) == ("broken", "tlkit-bad", ())
    assert reason in state.reason
    assert registry.names("head") == ["wide"]
    with pytest.raises(PluginError) as error:
        registry.find("head", "wode")
    assert "no head is called 'wode' (did you mean 'wide'?)" in str(error.value)
    assert "; these plugins failed to load: bad (tlkit-bad): " in str(error.value)
    assert registry.problems("head", "wode", {}) == [("name", str(error.value))]


def test_an_interrupt_of_the_user_is_not_swallowed(install: Install) -> None:
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_registry([])


def test_a_built_in_module_that_fails_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError):
        load_registry(["tlkit.builtin.no_such_module"])


@pytest.mark.parametrize("variable", ["one", "tlkit-one", " TLKIT_One ,nobody", "one,,"])
def test_plugins_are_left_out_by_name(
    install: Install, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    install("one", "raise RuntimeError('must not be imported')")
    install("two", HEAD.format(name="wide"))
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", ",".join([variable, *WORKSPACE]))
    registry = load_registry([])
    assert states(registry)["one"].state == "disabled"
    assert states(registry)["one"].reason == "TLKIT_DISABLE_PLUGINS"
    assert states(registry)["two"].state == "loaded"


def test_a_star_leaves_out_all_that_is_not_built_in(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one", HEAD.format(name="wide"))
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", "*")
    registry = load_registry(["tlkit.builtin.sources"])
    assert [state.name for state in registry.plugins if state.state != "disabled"] == ["sources"]
    assert states(registry)["one"].state == "disabled"
    assert registry.names("head") == []
    with pytest.raises(PluginError, match=r"no head is called 'wide'; there are none$"):
        registry.find("head", "wide")


def test_an_entry_point_may_be_an_object(install: Install) -> None:
    source = """
    import tlkit

    class Plugin:
        @tlkit.hookimpl
        def tlkit_sources(self, register):
            register("one", lambda root: root)

    plugin = Plugin()
    """
    install("one", source, entry="tlkit_test_one:plugin")
    assert load_registry([]).names("source") == ["one"]
