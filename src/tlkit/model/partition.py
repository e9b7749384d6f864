"""Divides a classifier at its frontier, where the first trainable parameter is met.

The **prefix** in front of the frontier is a fixed function of the image, so its outputs can be cached; the
**suffix** behind it is what trains. The frontier is found on a torch.fx graph of the backbone; the head is
always behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from tlkit.model.classifier import Classifier
from tlkit.model.fingerprint import Fingerprints, TensorHashes, fingerprint_graph
from tlkit.model.folding import fold_prefix
from tlkit.model.freezing import set_modes
from tlkit.model.frontier import Frontier
from tlkit.model.tracing import NotPartitionable, dependencies, rows_per_image

Self = TypeVar("Self", bound="Partition")


@dataclass(frozen=True, slots=True)
class Boundary:
    """One tensor that crosses the frontier.

    Attributes:
        node: the node of the backbone's graph that computes it.
        fingerprint: a hash of what it is a function of, besides the image.
        shape: of one image's part; its first dimension is the number of rows per image.
    """

    node: fx.Node
    fingerprint: str
    shape: tuple[int, ...]


class Partition(nn.Module):
    """A classifier as it is trained: a prefix without gradients, and a suffix that calling it runs.

    `train` and `eval` set the mode of every layer: layers in front of the frontier, and batch norms whose
    statistics must not be updated, stay in evaluation mode however often they are called.

    Attributes:
        classifier: the network itself; prefix and suffix share its parameters.
        boundaries: the tensors that cross the frontier; empty when nothing can be cached.
        fallback_reason: why the classifier trains whole, without cached features; None if it is partitioned.
    """

    boundaries: tuple[Boundary, ...] = ()
    fallback_reason: str | None = None

    def __init__(
        self,
        classifier: Classifier,
        suffix_modules: Sequence[nn.Module] | None,
        *,
        head_trainable: bool,
        update_statistics: bool,
    ) -> None:
        """Keeps what `train` needs: the backbone's modules behind the frontier (None: there are none)."""
        super().__init__()
        self.classifier = classifier
        self._suffix_modules = suffix_modules
        self._head_trainable = head_trainable
        self._update_statistics = update_statistics

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps images ``(B, 3, H, W)`` to the tensors that cross the frontier, without gradients."""
        raise NotImplementedError

    def features(self, *crossing: Tensor) -> Tensor:
        """Maps the tensors that cross the frontier to the backbone's features, which the head reads."""
        raise NotImplementedError

    def forward(self, *crossing: Tensor) -> Tensor:
        """Maps the tensors that cross the frontier to logits ``(B, classes)``."""
        logits: Tensor = self.classifier.head(self.features(*crossing))
        return logits

    def prefix_state(self) -> set[str]:
        """Returns the names of the parameters and buffers that cached features depend on."""
        return set()

    def refresh(self) -> None:
        """Recomputes what depends on the weights; call it after other weights were loaded."""

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Returns a function from a parameter's name to its layer, which timm's layer decay asks for."""
        return lambda name: self.classifier.layer(name.removeprefix("classifier."))

    def train(self: Self, mode: bool = True) -> Self:
        """Sets the mode of the suffix; see the class."""
        self.training = mode
        set_modes(
            self.classifier.backbone,
            self._suffix_modules,
            training=mode,
            update_statistics=self._update_statistics,
        )
        self.classifier.training = mode
        self.classifier.head.train(mode and self._head_trainable)
        return self


class WholeClassifier(Partition):
    """A classifier that is trained whole: what crosses the frontier are the images themselves."""

    def __init__(
        self,
        classifier: Classifier,
        trainable: set[str],
        reason: str,
        *,
        head_trainable: bool,
        update_statistics: bool,
    ) -> None:
        """Takes the names of the backbone's trainable parameters, and why it is not partitioned."""
        modules = _modules_from_first_trainable(classifier.backbone, trainable)
        super().__init__(
            classifier, modules, head_trainable=head_trainable, update_statistics=update_statistics
        )
        self.fallback_reason = reason

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the images."""
        return (images,)

    def features(self, *crossing: Tensor) -> Tensor:
        """Maps images to features."""
        return self.classifier.features(*crossing)


class PartitionedClassifier(Partition):
    """A classifier divided at its frontier, with tensors that can be cached.

    Its graphs are traced on one device, whose name they may contain: on another device, make a new partition.
    """

    def __init__(
        self,
        classifier: Classifier,
        frontier: Frontier,
        boundaries: tuple[Boundary, ...],
        fingerprints: Fingerprints,
        training_suffix: fx.Graph,
        *,
        head_trainable: bool,
        update_statistics: bool,
    ) -> None:
        """Takes the frontier in evaluation mode, and the suffix traced in training mode."""
        super().__init__(
            classifier,
            frontier.modules(),
            head_trainable=head_trainable,
            update_statistics=update_statistics,
        )
        self.boundaries = boundaries
        self._graph = frontier.graph
        self._fingerprints = fingerprints
        self._suffix_graphs = {False: frontier.suffix(), True: training_suffix}
        # in dictionaries, hidden from state_dict: they share the classifier's parameters
        self._suffixes = self._make_suffixes()
        self._prefix: list[fx.GraphModule] = []

    def _make_suffixes(self) -> dict[bool, fx.GraphModule]:
        root = self.classifier.backbone
        return {mode: fx.GraphModule(root, graph) for mode, graph in self._suffix_graphs.items()}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PartitionedClassifier:
        """Moves or casts the network; prefix and suffix are then made of its new tensors."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._suffixes, self._prefix = self._make_suffixes(), []
        return self

    def refresh(self) -> None:
        """Recomputes fingerprints and the folded prefix, and looks tensors up again."""
        self._suffixes, self._prefix = self._make_suffixes(), []
        self._fingerprints = fingerprint_graph(self.classifier.backbone, self._graph)
        self.boundaries = tuple(
            replace(boundary, fingerprint=self._fingerprints[boundary.node]) for boundary in self.boundaries
        )

    def prefix_state(self) -> set[str]:
        """Returns the names of the parameters and buffers that the prefix reads."""
        root = self.classifier.backbone
        names: set[str] = set()
        for node in dependencies(root, [boundary.node for boundary in self.boundaries]):
            if node.op == "get_attr":
                names.add(f"backbone.{node.target}")
            elif node.op == "call_module":
                state = root.get_submodule(str(node.target)).state_dict()
                names.update(f"backbone.{node.target}.{name}" for name in state)
        return names

    @property
    def prefix_module(self) -> fx.GraphModule:
        """The prefix, with batch norms folded; its output is the tuple of boundary tensors."""
        if not self._prefix:
            root = self.classifier.backbone
            targets = [boundary.node for boundary in self.boundaries]
            nodes = dependencies(root, targets)
            self._prefix.append(fold_prefix(root, nodes, targets, self._fingerprints))
        return self._prefix[0]

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps images ``(B, 3, H, W)`` to the boundary tensors, without gradients."""
        with torch.no_grad():
            crossing: tuple[Tensor, ...] = self.prefix_module(images)
        return crossing

    def features(self, *crossing: Tensor) -> Tensor:
        """Maps the boundary tensors to features."""
        features: Tensor = self._suffixes[self.training](*crossing)
        return features


def partition(
    classifier: Classifier, trainable: Collection[str], example: Tensor, *, update_statistics: bool
) -> Partition:
    """Divides `classifier` at the frontier that the trainable parameters make.

    Args:
        classifier: the network.
        trainable: names of the trainable parameters.
        example: one image ``(1, 3, H, W)``; only its shape and type matter.
        update_statistics: whether batch norms behind the frontier update their running statistics.

    Returns:
        A `PartitionedClassifier`, or a `WholeClassifier` with the reason why it is not divided.
    """
    names = {name.removeprefix("backbone.") for name in trainable if name.startswith("backbone.")}
    head_trainable = any(name.startswith("head.") for name in trainable)
    result: Partition
    try:
        result = _divide(classifier, names, example, head_trainable, update_statistics)
    except NotPartitionable as reason:
        result = WholeClassifier(
            classifier,
            names,
            str(reason),
            head_trainable=head_trainable,
            update_statistics=update_statistics,
        )
    result.eval()
    return result


def _divide(
    classifier: Classifier,
    trainable: set[str],
    example: Tensor,
    head_trainable: bool,
    update_statistics: bool,
) -> PartitionedClassifier:
    backbone, method = classifier.backbone, classifier.method
    if not any(True for _ in backbone.parameters()):
        raise NotPartitionable("the backbone has no parameters")
    if trainable and all(name in trainable for name, _ in backbone.named_parameters()):
        raise NotPartitionable("all parameters are trainable")
    backbone.eval()
    frontier = Frontier(backbone, method, trainable, example)
    hashes: TensorHashes = {}
    fingerprints = fingerprint_graph(backbone, frontier.graph, hashes)
    boundaries = tuple(
        Boundary(node, fingerprints[node], rows_per_image(frontier.values, node))
        for node in frontier.crossing
    )
    frontier.check_prefix()
    training_suffix = frontier.suffix()
    if trainable:
        # tracing bakes dropout and stochastic depth in, so the suffix is traced in each mode
        set_modes(backbone, frontier.modules(), training=True, update_statistics=update_statistics)
        try:
            in_training = Frontier(backbone, method, trainable, example)
            of_training = fingerprint_graph(backbone, in_training.graph, hashes)
            if [of_training[node] for node in in_training.crossing] != [
                boundary.fingerprint for boundary in boundaries
            ]:
                raise NotPartitionable("its frontier is another in training than in evaluation")
            training_suffix = in_training.suffix()
        finally:
            backbone.eval()
    result = PartitionedClassifier(
        classifier,
        frontier,
        boundaries,
        fingerprints,
        training_suffix,
        head_trainable=head_trainable,
        update_statistics=update_statistics,
    )
    if any(boundary.shape[0] > 1 for boundary in boundaries):
        _check_rows(result, example)
    return result


def _check_rows(result: PartitionedClassifier, example: Tensor) -> None:
    """Raises NotPartitionable unless the rows of an image lie together and in the images' order."""
    device = next(result.classifier.backbone.parameters()).device
    images = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
    both = result.prefix(images)
    single = [result.prefix(image[None]) for image in images]
    for index, tensor in enumerate(both):
        first, second = (crossing[index] for crossing in single)
        # rows in a wrong order differ as much as the two images do, whatever the precision
        if not (tensor - torch.cat([first, second])).norm() <= 0.1 * (first - second).norm():
            raise NotPartitionable("the rows of an image do not lie together at the frontier")


def _modules_from_first_trainable(root: nn.Module, trainable: set[str]) -> list[nn.Module] | None:
    """Returns the modules registered from the first trainable one on, and those that contain it."""
    order = list(root.named_modules())
    owners = {name.rpartition(".")[0] for name in trainable}
    first = next((index for index, (name, _) in enumerate(order) if name in owners), None)
    if first is None:
        return None
    path = order[first][0]
    return [
        module
        for index, (name, module) in enumerate(order)
        if index >= first or not name or f"{path}.".startswith(f"{name}.")
    ]
