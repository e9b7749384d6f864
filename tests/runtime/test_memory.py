"""How much memory a process may use, in a container and outside of one."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from tlkit.runtime import memory
from tlkit.runtime.memory import free_memory, total_memory

CPU = torch.device("cpu")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as Linux shows them to a container with 1 GB, 700 MB of them used, 300 of these for files."""
    for name, text in (
        ("memory.max", "1000000000\n"),
        ("memory.current", "700000000\n"),
        ("memory.stat", "anon 400000000\nfile 300000000\ninactive_file 300000000\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def test_a_container_has_no_more_memory_than_its_limit(container: Path) -> None:
    assert total_memory(CPU) == 1_000_000_000
    assert free_memory(CPU) == 600_000_000


def test_without_a_limit_the_total_is_the_machine_s(container: Path) -> None:
    (container / "memory.max").write_text("max\n")
    assert total_memory(CPU) == psutil.virtual_memory().total


def test_outside_of_a_container_memory_is_the_machine_s(container: Path) -> None:
    for path in container.iterdir():
        path.unlink()
    assert total_memory(CPU) == psutil.virtual_memory().total
    assert 0 < free_memory(CPU) <= total_memory(CPU)


def test_a_container_over_its_limit_has_no_free_memory(container: Path) -> None:
    (container / "memory.current").write_text("1500000000\n")
    assert free_memory(CPU) == 0
