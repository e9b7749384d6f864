"""What a backbone says of its network: blocks and the shape of its features."""

from __future__ import annotations

import pytest
import torch
from networks import REGISTRY, backbone, partitioned, tiny
from torch import Tensor, nn

from tlkit.errors import PluginError
from tlkit.model.classifier import Classifier
from tlkit.model.saving import make_backbone
from tlkit.parts.backbone import Backbone
from tlkit.recipe.schema import PartSpec


def test_blocks_are_the_children_with_parameters_unless_named() -> None:
    network = nn.Sequential()
    network.add_module("stem", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    network.add_module("act", nn.ReLU())
    network.add_module("body", nn.Conv2d(4, 8, 3))
    blocks = tiny(network).blocks()
    assert [block.name for block in blocks] == ["stem", "body"]
    assert [name for block in blocks for name in block.parameters] == [
        name for name, _ in network.named_parameters()
    ]


@pytest.mark.parametrize(
    ("kind", "shape"), [("plain", (512, 2, 2)), ("residual", (512,)), ("transformer", (192,))]
)
def test_finding_the_shape_of_features_leaves_the_network_as_it_was(
    kind: str, shape: tuple[int, ...]
) -> None:
    network = backbone(kind)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    assert network.feature_shape == shape
    for name, value in network.module.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert type(value) is Tensor
    images = torch.zeros(1, 3, 64, 64)
    assert getattr(network.module, network.method)(images).shape == (1, *shape), "and it can still compute"


def test_a_network_that_reads_values_is_run_once() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)
            self.runs = 0

        def forward(self, images: Tensor) -> Tensor:
            if float(images.sum()) > 1e9:  # tensors on the meta device have no values
                raise ValueError("too bright")
            self.runs += 1
            features: Tensor = self.linear(images.mean((2, 3)))
            return features

    module = Reading()
    assert tiny(module).feature_shape == (5,)
    assert module.runs == 0, "its attributes are restored"


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_a_network_in_torchscript_is_run_and_not_changed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    scripted = torch.jit.script(network)
    images = torch.randn(2, 3, 64, 64)
    before = scripted.eval()(images)
    assert tiny(nn.Sequential(scripted)).feature_shape == (4, 30, 30)
    assert torch.equal(scripted(images), before)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(7)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5)),
    ],
)
def test_layers_that_do_not_fit_are_noticed(module: nn.Module) -> None:
    with pytest.raises(RuntimeError, match=r"7|10"):
        _ = tiny(module).feature_shape


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (nn.Flatten(0), r"not \(6144,\)"),
        (nn.Unflatten(1, (1, 3)), r"not \(2, 1, 3, 32, 32\)"),
        (nn.AdaptiveMaxPool2d(1, return_indices=True), "not .*tuple"),
    ],
)
def test_features_of_another_shape_are_an_error(module: nn.Module, shown: str) -> None:
    with pytest.raises(PluginError, match=f"must return features of shape .*{shown}"):
        _ = tiny(module).feature_shape


def test_features_have_the_shape_that_the_recipes_preprocess_gives() -> None:
    """Also where the factory asked for their shape at the backbone's own size."""

    class Maker:
        def make(self, *_: object) -> Backbone:
            made = tiny(nn.Conv2d(3, 4, 3, padding=1), size=64)
            assert made.feature_shape == (4, 64, 64)
            return made

    made = make_backbone(Maker(), PartSpec(name="tiny"), {"size": 32})  # type: ignore[arg-type]
    assert made.feature_shape == (4, 32, 32)


@pytest.mark.parametrize("argument", ["drop_rate", "drop_path_rate"])
def test_timms_dropout_and_stochastic_depth_act_in_training_behind_the_frontier(argument: str) -> None:
    images = torch.randn(4, 3, 160, 160, generator=torch.Generator().manual_seed(0))

    def differs(policy: str, rate: float, *, training: bool) -> bool:
        options = {"weights": "none", "model_args": {argument: rate}}
        torch.manual_seed(7)
        base = REGISTRY.make("backbone", "test_vit", options)
        head = REGISTRY.make("head", "linear", {}, base, ["a", "b"])
        network, _ = partitioned(Classifier(base, head), policy, size=160)
        crossing = network.train(training).prefix(images)
        return not torch.equal(network(*crossing), network(*crossing))

    assert differs("nothing", 0.5, training=True)
    assert not differs("nothing", 0.5, training=False)
    assert not differs("nothing", 0.0, training=True)
    assert not differs("backbone", 0.5, training=True)
