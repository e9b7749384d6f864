"""Hugging Face for tlkit: backbones from `transformers`, a source of `datasets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tlkit
from tlkit_huggingface.backbones import find_factory, from_config, list_names
from tlkit_huggingface.source import hf_datasets

if TYPE_CHECKING:
    from tlkit import Register


@tlkit.hookimpl
def tlkit_backbones(register: Register) -> None:
    register.family("transformers", find_factory, list_names)
    register("transformers", from_config)


@tlkit.hookimpl
def tlkit_sources(register: Register) -> None:
    register("datasets", hf_datasets)
