"""The report's section on what it takes to reproduce a run."""

from __future__ import annotations

from pathlib import Path

import tlkit
from tlkit.experiment.record import RunRecord
from tlkit.reporting.provenance_section import make_provenance_section


def test_the_weights_are_named_with_their_origin_and_licence(fitted: Path) -> None:
    section = make_provenance_section(RunRecord(fitted), tlkit.load_registry())
    assert list(section.weights) == ["bottleneck", "fine-tune"]
    for weights in section.weights.values():
        assert (
            "vgg16-quarter, weights: pretrained, from tlkit-catsdogs 0.1.0, licence MIT; trained: " in weights
        )
