"""Hugging Face for tlkit: backbones over `transformers`, a source over `datasets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tlkit
from tlkit_huggingface.backbones import lookup, names, rebuilt
from tlkit_huggingface.source import hf_datasets

if TYPE_CHECKING:
    from tlkit import Register


@tlkit.hookimpl
def tlkit_backbones(register: Register) -> None:
    register.family("transformers", lookup, names)
    register("transformers", rebuilt)


@tlkit.hookimpl
def tlkit_sources(register: Register) -> None:
    register("datasets", hf_datasets)
