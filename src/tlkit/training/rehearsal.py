"""Rehearses an interruption: whether an optimiser that is saved and loaded goes on with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from tlkit.runtime.devices import one_thread
from tlkit.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tlkit.training.packing import State, pack

Optimizers = Callable[[nn.Module], torch.optim.Optimizer]

#: Steps before the interruption, and after it; some optimisers begin in another way.
STEPS = 6


class Layers(nn.Sequential):
    """Layers in a row, which timm's layer decay can tell apart."""

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Returns a function from a parameter's name to its layer."""
        return lambda name: int(name.partition(".")[0])


def resumes_exactly(make_optimizer: Optimizers, device: str = "cpu") -> bool:
    """Returns whether the optimiser ends with the same bits where it is interrupted, saved and loaded.

    The network is a few weights of each kind, and its gradients are drawn at random: all that an optimiser
    sees of a network.

    Args:
        make_optimizer: makes it over the weights of a network.
        device: where the network is.

    Raises:
        TypeError: its state holds what cannot be saved.
        Exception: whatever a step raises.
    """
    # timm's kron is compiled when it is used, which may take a minute
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"), one_thread():
        network, resumed = _make_network(device), _make_network(device)
        optimizer = make_optimizer(network)
        _train(network, optimizer, range(STEPS))
        state = network.state_dict()
        other = make_optimizer(resumed)
        with TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "resume"
            save_checkpoint(checkpoint, Checkpoint(state), network, optimizer)
            load_checkpoint(checkpoint, resumed, other, state)
        later = range(STEPS, 2 * STEPS)
        _train(network, optimizer, later)
        _train(resumed, other, later)
    return _bits(network, optimizer) == _bits(resumed, other)


def _make_network(device: str) -> nn.Module:
    torch.manual_seed(1)
    convolution = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    network = Layers(convolution, nn.BatchNorm2d(6), nn.Linear(6, 5))
    if device != "cpu":
        # bitsandbytes keeps 8 bits per number where a weight has at least 4096
        network.append(nn.LayerNorm(4096))
    return network.to(device)


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        torch.manual_seed(step)  # as epochs are seeded, since some optimisers draw random numbers
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def _bits(network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[object, dict[str, bytes]]:
    """Returns the optimiser's state: its plain values, and the bytes of its tensors."""
    tensors: State = dict(network.state_dict())
    packed = repr(pack(optimizer.state_dict(), tensors))
    return packed, {name: _bytes(value) for name, value in tensors.items()}


def _bytes(tensor: Tensor) -> bytes:
    # NaN does not equal NaN, but its bytes do
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
