"""The cats-versus-dogs experiment for tlkit: its images and its networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tlkit
from tlkit_catsdogs.convnet3 import convnet3
from tlkit_catsdogs.drawn.source import drawn
from tlkit_catsdogs.source import catsdogs
from tlkit_catsdogs.vgg16_quarter import vgg16_quarter

if TYPE_CHECKING:
    from tlkit import Register


@tlkit.hookimpl
def tlkit_sources(register: Register) -> None:
    register("catsdogs", catsdogs)
    register("drawn", drawn)


@tlkit.hookimpl
def tlkit_backbones(register: Register) -> None:
    register("convnet3", convnet3)
    register("vgg16-quarter", vgg16_quarter)
