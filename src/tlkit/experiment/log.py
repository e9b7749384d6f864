"""The events of a run in log.jsonl, a JSON object per line."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tlkit.errors import RunFolderError
from tlkit.training.history import EpochMetrics
from tlkit.utils.json_files import JsonModel, parse_json
from tlkit.utils.regular_files import read_regular


class Event(JsonModel):
    """Base of all events; `time` is in seconds since 1970."""

    time: float = Field(default_factory=lambda: round(time.time(), 3))


class FeaturesComputed(Event):
    """A frozen pass has ended: image views computed, by ``phase/part``, and its seconds."""

    event: Literal["features"] = "features"
    computed: dict[str, int]
    seconds: float


class PhaseStarted(Event):
    """A phase has begun."""

    event: Literal["phase_started"] = "phase_started"
    phase: str


class EpochEnded(Event):
    """An epoch has been trained and validated."""

    event: Literal["epoch"] = "epoch"
    phase: str
    metrics: EpochMetrics


class FoldEnded(Event):
    """A fold of a cross-validation has been trained, and its outcome is saved."""

    event: Literal["fold"] = "fold"
    phase: str


class PhaseEnded(Event):
    """A phase has been evaluated."""

    event: Literal["phase_ended"] = "phase_ended"
    phase: str


class RunEnded(Event):
    """The requested phases are done."""

    event: Literal["run_ended"] = "run_ended"
    goal_met: bool | None


class PluginFailed(Event):
    """A plugin's event hook, or a tracker, has raised."""

    event: Literal["plugin_failed"] = "plugin_failed"
    hook: str
    problem: str


AnyEvent = FeaturesComputed | PhaseStarted | EpochEnded | FoldEnded | PhaseEnded | RunEnded | PluginFailed


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)

    event: Annotated[AnyEvent, Field(discriminator="event")]


def append_event(path: Path, event: AnyEvent) -> None:
    """Appends an event to a log; a last line that was cut short is removed."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(event.model_dump_json().encode() + b"\n")


def read_events(path: Path) -> list[AnyEvent]:
    """Reads a log; a last line that was cut short, without a line break, is ignored.

    Raises:
        RunFolderError: the log cannot be read, or a line is not an event.
    """
    if not path.is_file():
        return []
    try:
        # a cut may be within a character, so lines are divided before they are decoded
        lines = [line.decode() for line in read_regular(path).split(b"\n")[:-1]]
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    return [
        parse_json(f'{{"event": {line}}}', _Line, RunFolderError, f"{path}, line {number}").event
        for number, line in enumerate(lines, 1)
    ]


@dataclass(frozen=True)
class PhaseTime:
    """How long a phase took, up to the last event of it, in seconds; `training` is without `features`."""

    features: float
    training: float


def time_of_phase(events: Iterable[AnyEvent], phase: str) -> PhaseTime:
    """Returns how long a phase took in all executions of its run that wrote these events."""
    features = training = 0.0
    last: float | None = None  # the time of its last event, while it is this phase's turn
    for event in events:
        if isinstance(event, PhaseStarted):
            last = event.time if event.phase == phase else None
        elif isinstance(event, FeaturesComputed):
            own = sum(count for owner, count in event.computed.items() if owner.split("/")[0] == phase)
            features += event.seconds * own / max(1, sum(event.computed.values()))
            if last is not None:
                training += max(0.0, event.time - last - event.seconds)
                last = event.time
        elif isinstance(event, EpochEnded | FoldEnded) and last is not None:
            training += max(0.0, event.time - last)  # a clock may be set back
            last = event.time
    return PhaseTime(features, training)
