"""EfficientNet-Lite for tlkit: backbones whose ImageNet weights are installed with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import tlkit
from tlkit_lite.backbones import efficientnet_lite

if TYPE_CHECKING:
    from tlkit import Register


@tlkit.hookimpl
def tlkit_backbones(register: Register) -> None:
    for variant in range(3):
        register(f"efficientnet-lite{variant}", partial(efficientnet_lite, variant))
