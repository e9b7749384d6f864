"""Precision, and copies between devices."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tlkit.runtime.devices import copy_to_cpu, gpu_settings

CPU = torch.device("cpu")


def test_the_programs_settings_are_restored() -> None:
    before = torch.get_float32_matmul_precision()
    with gpu_settings(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == before
    assert not torch.are_deterministic_algorithms_enabled()
    with gpu_settings(CPU):
        assert torch.get_float32_matmul_precision() == before
        assert not torch.are_deterministic_algorithms_enabled()


def test_batches_are_copied_in_order_one_behind() -> None:
    requested: list[int] = []

    def batches() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for key in range(3):
            requested.append(key)
            yield key, {"features": torch.full((2,), float(key))}

    copied = copy_to_cpu(batches())
    key, tensors = next(copied)
    assert (key, requested) == (0, [0, 1]), "the next batch is started before this one is handed out"
    assert tensors["features"].tolist() == [0.0, 0.0]
    others = [(key, tensors["features"].tolist()) for key, tensors in copied]
    assert others == [(1, [1.0, 1.0]), (2, [2.0, 2.0])]
    assert list(copy_to_cpu([])) == []
