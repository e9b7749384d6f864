"""Runs the prefixes of several networks together, computing what they have in common once."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tlkit.model.partition import Boundary, PartitionedClassifier
from tlkit.model.tracing import dependencies, is_in_place
from tlkit.runtime.devices import ComputeConfig
from tlkit.runtime.memory import total_memory

#: Maximum number of images per forward pass. Batches are always filled up, so that a feature does not depend
#: on the number of other images. A CPU gains nothing from larger batches; a GPU needs them to be busy.
BATCH, GPU_BATCH = 32, 256
#: Maximum number of elements of a tensor: some CUDA kernels count them in 32 bits.
MAX_ELEMENTS = 2**31 - 1

#: Boundaries to compute, by fingerprint, each with the network it belongs to.
Targets = Mapping[str, tuple[PartitionedClassifier, Boundary]]


@dataclass(frozen=True, slots=True)
class _Step:
    """One node of a prefix: its fingerprint, the module it runs in, and its inputs' fingerprints."""

    key: str
    root: nn.Module
    node: fx.Node
    inputs: Mapping[fx.Node, str]


class PrefixExecutor:
    """Computes boundaries of several networks in one pass.

    Two nodes are the same computation when their fingerprints are equal, whatever networks they are in.
    """

    def __init__(self, targets: Targets, compute: ComputeConfig) -> None:
        """Collects the steps that compute `targets`."""
        self._compute = compute
        self._results: dict[str, list[str]] = {}
        self._steps: list[_Step] = []
        self._networks: dict[str, set[int]] = {}
        for name, (network, boundary) in targets.items():
            self._results.setdefault(self._add(network, boundary), []).append(name)
        self._last_use = {
            name: index for index, step in enumerate(self._steps) for name in step.inputs.values()
        }
        self._copies_input = {index for index in range(len(self._steps)) if self._overwrites(index)}

    def _add(self, network: PartitionedClassifier, boundary: Boundary) -> str:
        """Adds the steps that compute a boundary; returns the key of its own step."""
        root = network.prefix_module
        (output,) = (node for node in root.graph.nodes if node.op == "output")
        crossing: Any = output.args[0]
        result: fx.Node = crossing[network.boundaries.index(boundary)]
        for node in dependencies(root, [result]):
            key = node.meta["fingerprint"]
            if key not in self._networks:
                inputs = {other: other.meta["fingerprint"] for other in node.all_input_nodes}
                self._steps.append(_Step(key, root, node, inputs))
            self._networks.setdefault(key, set()).add(id(network))
        return str(result.meta["fingerprint"])

    def _overwrites(self, index: int) -> bool:
        """Returns whether a step modifies its input in place while another network still needs it."""
        step = self._steps[index]
        if not is_in_place(step.root, step.node):
            return False
        modified = step.inputs[step.node.all_input_nodes[0]]
        own = self._networks[step.key]
        return any(
            modified in later.inputs.values() and self._networks[later.key] - own
            for later in self._steps[index + 1 :]
        )

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Maps images ``(B, 3, H, W)`` to each boundary's features ``(k·B, …)``, on the same device."""
        features: dict[str, Tensor] = {}
        with torch.no_grad(), self._compute.autocast():
            for step, values in self._walk(images):
                for name in self._results.get(step.key, ()):
                    # copied at once: a later step may modify it in place
                    features[name] = values[step.key].to(
                        self._compute.dtype, copy=True, memory_format=torch.contiguous_format
                    )
        return features

    def footprint(self, images: Tensor) -> tuple[int, int]:
        """Returns the peak size of activations in bytes, and the largest tensor's number of elements."""
        peak, largest = 0, 0
        with torch.no_grad(), self._compute.autocast():
            for _, values in self._walk(images):
                tensors = [value for value in values.values() if isinstance(value, Tensor)]
                storages = {value.untyped_storage().data_ptr(): value.untyped_storage() for value in tensors}
                peak = max(peak, sum(storage.nbytes() for storage in storages.values()))
                largest = max(largest, *(value.numel() for value in tensors), 0)
        return peak, largest

    def _walk(self, images: Tensor) -> Iterator[tuple[_Step, dict[str, Any]]]:
        """Yields each step after it is computed, with all values that are still needed, its own included."""
        values: dict[str, Any] = {}
        for index, step in enumerate(self._steps):
            values[step.key] = self._evaluate(step, values, images, index in self._copies_input)
            yield step, values
            for name in step.inputs.values():
                if self._last_use[name] == index:
                    values.pop(name, None)

    def _evaluate(self, step: _Step, values: dict[str, Any], images: Tensor, copy_input: bool) -> Any:
        node = step.node
        if node.op == "placeholder":
            return images
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(step.root)
        args: Any
        kwargs: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda other: values[step.inputs[other]])
        if copy_input:
            args = (args[0].clone(), *args[1:])
        if node.op == "call_module":
            return step.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)


def batch_size(executor: PrefixExecutor, size: int, device: torch.device) -> int:
    """Returns how many images of `size` pixels pass at once, with activations in a quarter of the memory.

    It depends on the network and the machine alone, not on what is free, so that the same run computes the
    same features.
    """
    # measured on two, since some networks squeeze a batch of one away
    images = torch.zeros(2, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    peak, largest = executor.footprint(images)
    available = total_memory(device) // 4
    count = GPU_BATCH if device.type == "cuda" else BATCH
    while count > 2 and (count * peak > 2 * available or count * largest > 2 * MAX_ELEMENTS):
        count //= 2
    return count
