"""Names of a classifier's parameters in timm's network, where the two are the same."""

from __future__ import annotations

from torch import nn

from tlkit.model.classifier import Classifier
from tlkit.parts.backbone import Backbone


def timm_layer(classifier: Classifier, backbone: Backbone) -> str | None:
    """Returns timm's name of its last layer, where this classifier is exactly that network; else None."""
    config = backbone.timm_config
    linear = classifier.head.state_dict().keys() == {"fc.weight", "fc.bias"}
    if config is None or not linear or len(backbone.feature_shape) != 1 or classifier.method != "forward":
        return None
    layer = config["pretrained_cfg"].get("classifier")
    return layer if isinstance(layer, str) and isinstance(backbone.classifier, nn.Linear) else None


def timm_name(name: str, layer: str) -> str:
    """Returns timm's name of a classifier's parameter; `layer` is its last layer's."""
    return name.replace("head.fc", layer, 1) if name.startswith("head.") else name.removeprefix("backbone.")


def own_name(name: str, layer: str) -> str:
    """Returns the classifier's name of a parameter of timm's."""
    head = name.startswith(f"{layer}.")
    return name.replace(layer, "head.fc", 1) if head else f"backbone.{name}"
