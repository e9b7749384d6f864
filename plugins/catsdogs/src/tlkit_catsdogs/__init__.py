"""The cats-versus-dogs experiment: its photos and its benchmark network, as parts of tlkit's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tlkit
from tlkit_catsdogs.convnet3 import convnet3
from tlkit_catsdogs.source import catsdogs

if TYPE_CHECKING:
    from tlkit.plugins import Register


@tlkit.hookimpl
def tlkit_sources(register: Register) -> None:
    register("catsdogs", catsdogs)


@tlkit.hookimpl
def tlkit_backbones(register: Register) -> None:
    register("convnet3", convnet3)
