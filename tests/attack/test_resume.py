"""Checkpoints that were damaged, and every optimiser of timm: resumed bit for bit, or not at all."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import REGISTRY, partitioned, tiny
from small_training import LOSS
from torch import Tensor, nn

from tlkit.data.feed import Indices, batch_indices
from tlkit.errors import RunFolderError
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.partition import Partition
from tlkit.recipe.schema import PartSpec, TrainingSpec
from tlkit.runtime.devices import ComputeConfig
from tlkit.training import loop
from tlkit.training.checkpoint import load_checkpoint
from tlkit.training.loop import TrainingInputs, train, trained_state
from tlkit.training.optimizers import make_optimizer, optimizer_problems

COMPUTE = ComputeConfig(torch.device("cpu"), torch.float32)
FILES = ("best.safetensors", "now.safetensors", "optimizer.safetensors", "progress.json")
PARTS = 4
#: Refused where there is no GPU with the library that they come from, or for good.
REFUSED = {
    "adahessian": "needs second derivatives",
    "bnb": "CUDA required",
    "fused": "CUDA required",
}


class Noise:
    """Images of noise."""

    def __init__(self, count: int) -> None:
        self.images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Indices, size: int, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        for indices in batch_indices(order, size):
            yield indices, (self.images[torch.from_numpy(indices)],)


LABELS = np.arange(8) % 2
INPUTS = TrainingInputs("noise", Noise(8), LABELS, Noise(8), LABELS, 2, ("attack",), LOSS)


def make_training(optimizer: str, **options: object) -> TrainingSpec:
    part = PartSpec(name=optimizer, options={"lr": 0.01, **options})
    return TrainingSpec(epochs=3, batch_size=4, optimizer=part)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> Partition:
    """A network with weights of one, two and four dimensions, which tests train from its `beginning`."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
    base = tiny(nn.Sequential(*layers), size=8)
    classifier = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    return partitioned(to_layout(classifier, COMPUTE.device), "nothing", size=8)[0]


@pytest.fixture(scope="module")
def beginning(network: Partition) -> dict[str, Tensor]:
    return trained_state(network)


def timms_names(part: int) -> list[str]:
    from timm.optim import list_optimizers

    return list_optimizers()[part::PARTS]


@pytest.mark.filterwarnings("ignore:.*opt_einsum")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_optimiser_is_resumed_bit_for_bit_or_refused(
    part: int,
    network: Partition,
    beginning: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    def losses(name: str, folder: str, last: int = 3) -> list[float]:
        network.load_state_dict(beginning, strict=False)
        training = make_training(name)
        with torch.compiler.set_stance("force_eager"):  # timm's kron is compiled in a minute
            epochs = train(
                network,
                INPUTS,
                training,
                COMPUTE,
                tmp_path / name / folder,
                lambda metrics: metrics.epoch == last,
                note=pytest.fail,
            ).epochs
        return [value for metrics in epochs for value in (metrics.train_loss, metrics.val_loss)]

    for name in timms_names(part):
        problems = optimizer_problems(name, {"lr": 0.01})
        if problems:
            ((key, message),) = problems
            assert key == "name"
            assert any(name.startswith(start) and text in message for start, text in REFUSED.items()), message
            continue
        expected = losses(name, "whole")
        weights = trained_state(network)
        assert losses(name, "stopped", last=2) == expected[:4], name
        assert losses(name, "stopped") == expected, name
        assert all(torch.equal(weights[key], value) for key, value in trained_state(network).items()), name


@dataclass
class Attacked:
    """A checkpoint after one epoch, and what should not be changed by one that is damaged."""

    folder: Path
    network: Partition
    optimizer: torch.optim.Optimizer

    def refuse(self, what: str) -> None:
        """Fails unless the checkpoint is refused, naming `what`, and nothing of it is loaded."""
        before, state = trained_state(self.network), repr(self.optimizer.state_dict())
        with pytest.raises(RunFolderError) as caught:
            load_checkpoint(self.folder, self.network, self.optimizer, before)
        assert what in str(caught.value)
        assert "\n" not in str(caught.value)
        assert repr(self.optimizer.state_dict()) == state
        assert all(torch.equal(before[name], value) for name, value in trained_state(self.network).items())


@pytest.fixture(scope="module")
def saved(network: Partition, beginning: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, of one epoch and of two, which tests must not change."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "SAVE_EVERY", 0.0)
        for last in (1, 2):
            network.load_state_dict(beginning, strict=False)
            training = make_training("lamb")

            def ended(metrics: loop.EpochMetrics, last: int = last) -> bool:
                return metrics.epoch == last

            train(network, INPUTS, training, COMPUTE, folder / str(last), ended)
    return folder


@pytest.fixture
def attacked(saved: Path, network: Partition, beginning: dict[str, Tensor], tmp_path: Path) -> Attacked:
    network.load_state_dict(beginning, strict=False)
    folder = Path(shutil.copytree(saved / "1", tmp_path / "resume"))
    return Attacked(folder, network, make_optimizer(network, make_training("lamb").optimizer))


def test_the_checkpoint_is_used_where_nothing_is_damaged(attacked: Attacked) -> None:
    checkpoint = load_checkpoint(
        attacked.folder, attacked.network, attacked.optimizer, trained_state(attacked.network)
    )
    assert checkpoint is not None
    assert len(checkpoint.history.epochs) == 1
    assert {path.name for path in attacked.folder.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_bit_anywhere_is_noticed(name: str, attacked: Attacked) -> None:
    generator, path = random.Random(name), attacked.folder / name
    content = path.read_bytes()
    positions = {0, len(content) - 2, *generator.sample(range(len(content) - 1), 40)}
    for position in positions:  # not the last byte of progress.json, which is the end of a line
        changed = bytearray(content)
        changed[position] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        attacked.refuse(name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_is_noticed(name: str, attacked: Attacked) -> None:
    path = attacked.folder / name
    content = path.read_bytes()
    for length in (0, 1, 8, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:length])
        attacked.refuse(name)
    path.write_bytes(content + content)
    attacked.refuse(name)


def damages() -> dict[str, Callable[[Path], object]]:
    """Returns what may be in place of a file of a checkpoint."""

    def replace(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def damage(path: Path) -> None:
            path.unlink()
            make(path)

        return damage

    return {
        "missing": Path.unlink,
        "a folder": replace(Path.mkdir),
        "a pipe": replace(os.mkfifo),
        "a link to nothing": replace(lambda path: path.symlink_to("nothing")),
        "a link to itself": replace(lambda path: path.symlink_to(path.name)),
        "a device": replace(lambda path: path.symlink_to("/dev/zero")),
        "other JSON": lambda path: path.write_text('{"sha256": [NaN]}'),
        "deep JSON": lambda path: path.write_text("[" * 100_000),
    }


@pytest.mark.parametrize("damage", damages().values(), ids=damages())
@pytest.mark.parametrize("name", FILES)
def test_anything_else_in_place_of_a_file_is_noticed(
    name: str, damage: Callable[[Path], object], attacked: Attacked
) -> None:
    damage(attacked.folder / name)
    attacked.refuse(name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_noticed(name: str, attacked: Attacked, saved: Path) -> None:
    other = (saved / "2" / name).read_bytes()
    assert other != (attacked.folder / name).read_bytes()
    (attacked.folder / name).write_bytes(other)
    attacked.refuse("safetensors")


def test_files_that_were_swapped_are_noticed(attacked: Attacked) -> None:
    now, optimizer = attacked.folder / "now.safetensors", attacked.folder / "optimizer.safetensors"
    now.rename(attacked.folder / "other")
    optimizer.rename(now)
    (attacked.folder / "other").rename(optimizer)
    attacked.refuse("now.safetensors")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_anything_in_place_of_the_folder_is_noticed_and_replaced(
    make: Callable[[Path], object], attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    shutil.rmtree(attacked.folder)
    make(attacked.folder)
    attacked.refuse("progress.json")
    notes: list[str] = []
    history = train(
        attacked.network, INPUTS, make_training("lamb"), COMPUTE, attacked.folder, note=notes.append
    )
    assert len(history.epochs) == 3
    assert len(notes) == 1
    assert [path.name for path in attacked.folder.parent.iterdir()] == ["resume"]
    assert {path.name for path in attacked.folder.iterdir()} == set(FILES)
