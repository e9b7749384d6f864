"""The report's section on what it takes to reproduce a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import RunFolderError, TlkitError
from tlkit.experiment.record import PhaseRecord, RunRecord
from tlkit.experiment.results import RunDescription
from tlkit.model.description import read_config
from tlkit.plugins import options
from tlkit.plugins.registry import Registry
from tlkit.utils.json_files import read_text


@dataclass(frozen=True)
class ProvenanceSection:
    """What it takes to reproduce a run.

    Attributes:
        command: the command line; empty if it is unknown.
        description: versions, machine, device and seed, or None before the plan was made.
        weights: by phase: the weights that it started from with their origin and licence, and the file that
            they were saved to.
        recipe: the text of the recipe.
    """

    command: str
    description: RunDescription | None
    weights: dict[str, str]
    recipe: str


def make_provenance_section(record: RunRecord, registry: Registry) -> ProvenanceSection:
    """Makes the section."""
    return ProvenanceSection(
        command=_format_command(record.description.command) if record.description else "",
        description=record.description,
        weights={phase.name: _describe_weights(phase, registry) for phase in record.phases},
        recipe=read_text(record.folder / "recipe.toml", RunFolderError),
    )


def _format_command(command: Sequence[str]) -> str:
    """Formats a command line; paths of tlkit's own program are left out."""
    if command and Path(command[0]).name in ("tlkit", "__main__.py"):
        return shlex.join(["tlkit", *command[1:]])
    return shlex.join(command)


def _describe_weights(phase: PhaseRecord, registry: Registry) -> str:
    backbone = phase.phase.backbone
    try:
        backbone_options = options.describe(registry.find("backbone", backbone.name).factory)
    except TlkitError:  # its plugin is not installed here
        backbone_options = []
    default = next((option.default for option in backbone_options if option.name == "weights"), "its own")
    start = f"{backbone.name}, weights: {backbone.options.get('weights', default)}"
    if phase.result is not None and phase.result.weights is not None:
        start += f", from {phase.result.weights.describe()}"
    try:
        trained = read_config(phase.folder / "model").tlkit.sha256
    except TlkitError:
        return start
    return f"{start}; trained: model.safetensors with sha256 {trained}"
