"""What only a GPU can show; every other test computes on it too where there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import BACKBONES, RECIPE, train_losses, write_recipe

import tlkit
from tlkit.runtime.devices import copy_to_cpu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

WHOLE = '\n[[phase]]\nname = "whole"\nstart_from = "fine-tune"\nfreeze = "nothing"\n'


def run_twice(few_photos: Path, folder: Path, kind: str, precision: str) -> list[tlkit.Run]:
    text = RECIPE.replace('"float32"', f'"{precision}"') + WHOLE
    recipe = write_recipe(folder / "recipe.toml", few_photos, kind, text)
    return [tlkit.run(recipe, out=folder / out, device="cuda") for out in ("first", "second")]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", BACKBONES)
def test_the_same_run_computes_the_same_numbers(
    few_photos: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    first, second = run_twice(few_photos, tmp_path, kind, precision)
    assert [phase.name for phase in first.results.phases] == ["bottleneck", "fine-tune", "whole"]
    for phase in first.results.phases:
        weights = [
            (run.folder / "phases" / phase.name / "model" / "model.safetensors").read_bytes()
            for run in (first, second)
        ]
        assert weights[0] == weights[1], phase.name
        assert train_losses(first, phase.name) == train_losses(second, phase.name)


def test_a_model_predicts_the_same_on_both_devices(few_photos: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos, "residual")
    run = tlkit.run(recipe, out=tmp_path / "run", device="cuda")
    files = sorted(few_photos.glob("*.jpg"))[:20]
    on_gpu, on_cpu = (
        tlkit.load(run.folder, device=device).predict_proba(files) for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4)


def test_batches_that_are_overwritten_are_copied_before(tmp_path: Path) -> None:
    held = torch.zeros(64, 1 << 20, device="cuda")

    def batches() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for key in range(6):
            held.fill_(key)
            yield key, {"features": held.clone()}

    for key, tensors in copy_to_cpu(batches()):
        assert bool((tensors["features"] == key).all()), key


def test_too_little_memory_is_said_plainly(few_photos: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("size = 64", "size = 512").replace("batch_size = 4", "batch_size = 16") + WHOLE
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos, "plain", text)
    limited = (
        "import sys, torch; from tlkit.cli.app import main; "
        "free, total = torch.cuda.mem_get_info(); "
        "torch.cuda.set_per_process_memory_fraction(0.6e9 / total); main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited, "run", str(recipe), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "the memory of cuda" in result.stderr and "training.batch_size" in result.stderr
    assert "Traceback" not in result.stderr
