"""Image models of transformers: features and pixels as in transformers, partitioning, model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tlkit_catsdogs.drawn.world import draw

from tlkit import Backbone, PluginError, WeightsError, WeightsOrigin, load_registry
from tlkit.data.images import decode
from tlkit.data.loader import normalize
from tlkit.model.classifier import Classifier
from tlkit.model.description import Calibration
from tlkit.model.freezing import freeze
from tlkit.model.partition import partition
from tlkit.model.saving import load_model, save_model

REGISTRY = load_registry()
TOKENS = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
SQUARE = {"size": {"height": 32, "width": 32}}
#: By model type: a small configuration, an image processor and its settings, and the number of blocks.
KINDS: dict[str, tuple[dict[str, Any], str, dict[str, Any], int]] = {
    "vit": ({**TOKENS, "intermediate_size": 64, "hidden_dropout_prob": 0.1}, "ViT", SQUARE, 4),
    "deit": (
        {**TOKENS, "intermediate_size": 64},
        "DeiT",
        {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}},
        4,
    ),
    "swin": (
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2, 1], "num_heads": [1, 2, 4]}
        | {"window_size": 4, "drop_path_rate": 0.2},
        "ViT",
        SQUARE,
        4,
    ),
    "convnext": (
        {**STAGES, "image_size": 32},
        "ConvNext",
        {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
        5,
    ),
    "resnet": (
        {**STAGES, "embedding_size": 8, "layer_type": "basic"},
        "Bit",
        {"size": {"shortest_edge": 39}, "crop_size": {"height": 32, "width": 32}},
        5,
    ),
    "dinov2": (TOKENS, "Bit", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}, 4),
}


def save_pretrained(
    folder: Path, kind: str, auto: str = "AutoModelForImageClassification", **settings: Any
) -> Path:
    """Writes a model of that kind and its image processor to a folder; returns the folder."""
    import transformers
    from transformers.utils import logging

    options, processor, own, _ = KINDS[kind]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(kind, num_labels=5, **options)
    config.architectures = []
    torch.manual_seed(3)
    model = getattr(transformers, auto).from_config(config)
    with torch.no_grad():
        for value in model.parameters():  # some are initialised to zero, which would hide mistakes
            value.add_(0.02 * torch.randn_like(value))
    model.save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")(**{**own, **settings}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns a folder with a classification model for each kind."""
    return {kind: save_pretrained(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def make(folder: Path, **options: Any) -> Backbone:
    backbone: Backbone = REGISTRY.make("backbone", f"transformers:{folder}", options)
    return backbone


def make_classifier(backbone: Backbone) -> Classifier:
    return Classifier(backbone, REGISTRY.make("head", "linear", {}, backbone, ["a", "b", "c"]))


def make_images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    """The last layer maps pooled features to the model's own logits; map is its last hidden state."""
    import transformers

    model = transformers.AutoModelForImageClassification.from_pretrained(folders[kind]).eval()
    pooled, maps = make(folders[kind]), make(folders[kind], features="map")
    images = make_images()
    assert pooled.classifier is not None
    with torch.no_grad():
        logits = pooled.classifier(pooled.module(images))
        assert (logits - model(images).logits).abs().max() < 1e-5
        last = model.base_model(images).last_hidden_state
        assert (maps.module(images) - last).abs().max() < 1e-5
    assert pooled.feature_shape == (pooled.classifier.in_features,)
    assert maps.feature_shape == tuple(last.shape[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_image_processor(folders: dict[str, Path], kind: str) -> None:
    """Both resize with Pillow, so values differ by rounding errors of float32 at most."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folders[kind], backend="pil")
    preprocess = make(folders[kind], weights="none").preprocess
    for size in ((160, 160), (128, 90), (70, 95)):
        image = decode(draw("street", 1, 5)).resize(size)
        theirs = processor(image, return_tensors="pt")["pixel_values"][0]
        ours = normalize(preprocess(image)[None], preprocess)[0]
        assert theirs.shape == ours.shape
        # one rounds half of an odd border up, the other down: the image is then shifted by one pixel
        shifted = [torch.roll(ours, (dy, dx), (1, 2)) for dy in (0, 1, -1) for dx in (0, 1, -1)]
        differences = [(image - theirs)[:, 1:-1, 1:-1].abs().max() for image in shifted]
        assert min(differences) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_partitioned_at_the_last_block_it_is_the_same_network(folders: dict[str, Path], kind: str) -> None:
    """Cached features lose nothing; only trainable parameters change in a training step."""
    backbone = make(folders[kind])
    blocks = backbone.blocks()
    names = [name for block in blocks for name in block.parameters]
    assert sorted(names) == sorted(name for name, _ in backbone.module.named_parameters())
    assert blocks[0].name == "embeddings" and len(blocks) == KINDS[kind][3]

    network = make_classifier(backbone)
    trainable = REGISTRY.make("freeze-policy", "all-but-last-blocks", {"blocks": 1}, network)
    freeze(network, trainable)
    partitioned = partition(network, trainable, torch.zeros(1, 3, 32, 32), update_statistics=False)
    assert partitioned.fallback_reason is None and partitioned.boundaries
    with torch.no_grad():
        assert torch.equal(partitioned(*partitioned.prefix(make_images())), network.eval()(make_images()))

    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], lr=1.0)
    partitioned.train()
    partitioned(*partitioned.prefix(make_images())).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= trainable and any(name.startswith("backbone.") for name in changed)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_model_folder_does_not_need_the_original(tmp_path: Path, kind: str) -> None:
    origin = save_pretrained(tmp_path / "origin", kind)
    backbone = make(origin, features="map")
    network = make_classifier(backbone).eval()
    table = {"name": f"transformers:{origin}"}
    save_model(
        tmp_path / "model",
        network,
        backbone,
        backbone_table=table,
        head_table={"name": "linear"},
        classes=["a", "b", "c"],
        calibration=Calibration(temperature=1.0, reject_below=None),
    )
    origin.rename(tmp_path / "moved")
    loaded = load_model(tmp_path / "model", REGISTRY)
    assert loaded.backbone.preprocess == backbone.preprocess
    assert str(origin) not in (tmp_path / "model" / "config.json").read_text()
    with torch.no_grad():
        assert torch.equal(loaded.classifier(make_images()), network(make_images()))


@pytest.mark.parametrize(("kind", "width"), [("vit", 32), ("resnet", 32), ("dinov2", 32)])
def test_a_model_without_a_classifier(tmp_path: Path, kind: str, width: int) -> None:
    """Its pooled features are its own pooler's output."""
    import transformers

    backbone = make(save_pretrained(tmp_path, kind, "AutoModel"))
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        pooled = model(make_images()).pooler_output.flatten(1)
        assert (backbone.module(make_images()) - pooled).abs().max() < 1e-5
    assert backbone.classifier is None and backbone.feature_shape == (width,)


def test_weights_are_named_by_their_folder_and_the_licence_of_their_card(tmp_path: Path) -> None:
    folder = save_pretrained(tmp_path / "vit", "vit")
    assert make(folder).weights_origin == WeightsOrigin("transformers:vit")
    assert make(folder, weights="none").weights_origin is None
    card = folder / "README.md"
    card.write_text("---\nlicense: bsd-3-clause\n---\n# A network\n")
    assert make(folder).weights_origin == WeightsOrigin("transformers:vit", "bsd-3-clause")
    for content in ("---\nlicense: [a, b]\n---\n", "---\n- : {\n---\n", "no metadata"):
        card.write_text(content)
        assert make(folder).weights_origin == WeightsOrigin("transformers:vit")


def test_a_pooler_that_was_not_saved_is_not_used(tmp_path: Path) -> None:
    """A model for masked images has no pooler: pooled features are the class token."""
    import transformers

    backbone = make(
        save_pretrained(tmp_path, "vit", "AutoModelForMaskedImageModeling", size={"height": 32, "width": 32})
    )
    model = transformers.AutoModelForMaskedImageModeling.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        token = model.base_model(make_images()).last_hidden_state[:, 0]
        assert (backbone.module(make_images()) - token).abs().max() < 1e-5
    assert "pooler" not in "".join(block.name for block in backbone.blocks())


def test_bfloat16_weights_are_read_as_float32(tmp_path: Path) -> None:
    import transformers

    save_pretrained(tmp_path, "vit")
    transformers.AutoModelForImageClassification.from_pretrained(tmp_path).bfloat16().save_pretrained(
        tmp_path
    )
    assert {value.dtype for value in make(tmp_path).module.parameters()} == {torch.float32}


def test_a_model_that_cannot_be_traced_trains_whole_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.vit.modeling_vit import ViTModel

    plain = ViTModel.forward

    def asks(self: Any, pixel_values: torch.Tensor, **options: Any) -> Any:
        return plain(self, pixel_values if pixel_values.sum() > 1e9 else pixel_values * 2, **options)

    monkeypatch.setattr(ViTModel, "forward", asks)
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"], **KINDS["vit"][0]}
    backbone = REGISTRY.make("backbone", "transformers", {"config": config})
    network = make_classifier(backbone)
    trainable = REGISTRY.make("freeze-policy", "all-but-last-blocks", {"blocks": 1}, network)
    partitioned = partition(network, trainable, torch.zeros(1, 3, 32, 32), update_statistics=False)
    assert "control flow" in str(partitioned.fallback_reason)
    assert len(backbone.blocks()) == 4 and partitioned(make_images()).shape == (3, 3)


def test_image_processors_that_tlkit_cannot_reproduce(tmp_path: Path) -> None:
    cases = {
        "not square": ({"do_center_crop": False}, "dinov2"),
        "only square": ({"size": {"height": 32, "width": 40}}, "vit"),
        "does not resize": ({"do_resize": False}, "vit"),
        "Pillow's filter 4": ({"resample": 4}, "vit"),
        "adds a border": ({"size": {"shortest_edge": 20}}, "dinov2"),
    }
    for message, (settings, kind) in cases.items():
        folder = save_pretrained(tmp_path / message.replace(" ", "-"), kind, **settings)
        with pytest.raises(PluginError, match=message):
            make(folder, weights="none")


def test_pixels_of_any_scale(tmp_path: Path) -> None:
    """Mean and std are converted to pixels of 0–1, also of a processor that does not rescale or normalise."""
    folder = save_pretrained(tmp_path, "vit", do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3)
    preprocess = make(folder, weights="none").preprocess
    assert np.allclose(preprocess.mean, 0.5) and np.allclose(preprocess.std, 0.5)
    plain = make(save_pretrained(tmp_path, "vit", do_normalize=False), weights="none").preprocess
    assert plain.mean == (0.0, 0.0, 0.0) and plain.std == (1.0, 1.0, 1.0)


def test_a_processor_that_does_more_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import ViTImageProcessorPil

    folder = save_pretrained(tmp_path, "vit")
    monkeypatch.setattr(ViTImageProcessorPil, "normalize", lambda self, image, mean, std: 0 * image)
    with pytest.raises(PluginError, match="more than its settings say"):
        make(folder, weights="none")


def test_folders_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_pretrained(tmp_path / "vit", "vit")
    with pytest.raises(WeightsError, match=r"vitt is not a folder \(did you mean 'vit'"):
        make(tmp_path / "vitt")
    weights = folder / "model.safetensors"
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        make(tmp_path / "empty")
    torch.save({}, folder / "pytorch_model.bin")
    content = weights.read_bytes()
    weights.unlink()
    with pytest.raises(WeightsError, match="they may run code"):
        make(folder)
    assert make(folder, weights="none").feature_shape == (32,)
    weights.write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(WeightsError, match="do not fit the network"):
        make(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(PluginError, match="image processor"):
        make(folder, weights="none")
    (folder / "config.json").write_text("{")
    with pytest.raises(PluginError, match="transformers refuses it"):
        make(folder)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="could not be reached"):
        REGISTRY.make("backbone", "transformers:someone/some-model", {})


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = save_pretrained(tmp_path, "vit")
    (folder / "evil.py").write_text("raise SystemExit('run')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PluginError, match="transformers refuses it"):
        make(folder)


def test_images_of_another_size_than_the_network_was_made_for(tmp_path: Path) -> None:
    folder = save_pretrained(tmp_path, "vit", size={"height": 48, "width": 48})
    with pytest.raises(PluginError, match="cannot be used for images of 48x48"):
        make(folder)
