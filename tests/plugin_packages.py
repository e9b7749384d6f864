"""Source code of plugins that tests install, and what became of them."""

from __future__ import annotations

from tlkit.plugins.registry import PluginState, Registry

#: The plugins of this repository, which are installed when its tests run.
WORKSPACE = ("tlkit-catsdogs", "tlkit-huggingface", "tlkit-lite", "tlkit-ray")

#: A plugin with one head, called ``{name!r}``.
HEAD = """
import tlkit

@tlkit.hookimpl
def tlkit_heads(register):
    register({name!r}, head)

def head(backbone, classes, *, hidden: int = 256):
    return backbone, classes, hidden
"""


def states(registry: Registry) -> dict[str, PluginState]:
    """Returns the state of each plugin by its name, without those of this repository."""
    return {state.name: state for state in registry.plugins if state.distribution not in WORKSPACE}
