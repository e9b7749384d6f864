"""What the threshold for unknown images is chosen on: images that the network was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tlkit
from tlkit.data.dataset import MAX_REPRESENTATIVES, Dataset
from tlkit.data.images import Image
from tlkit.data.splits import Splits
from tlkit.experiment.results import UnknownThreshold
from tlkit.parts.source import Sample

RECIPE = """
name = "unknown"
data = {{ source = "folder", root = "{photos}", {data} }}
backbone = {{ name = "test_resnet", weights = "none" }}
preprocess = {{ size = 64 }}
training = {{ epochs = 1, optimizer = {{ name = "sgd", lr = 1e-2 }} }}

[[phase]]
name = "only"
freeze = "{freeze}"
"""


@pytest.mark.parametrize(
    ("freeze", "data", "chosen_on"),
    [
        ("backbone", "folds = 4", "80 training images, each left out in turn"),
        ("nothing", "folds = 4", "80 images out of fold"),
        ("nothing", "fractions = { val = 0.4, test = 0.1 }", "32 validation images"),
        ("nothing", "fractions = { val = 0.1, test = 0.1 }", None),
    ],
)
def test_what_it_is_chosen_on(
    freeze: str, data: str, chosen_on: str | None, by_class: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(photos=by_class, data=data, freeze=freeze))
    run = tlkit.run(recipe, out=tmp_path / "run")
    unknown, stored = run.results.phases[0].unknown, tlkit.load(run.folder, device="cpu").unknown
    assert unknown is not None
    assert unknown.chosen_on == chosen_on
    if chosen_on is None:
        assert unknown.why_not == "the backbone was trained, and there are fewer than 20 validation images"
        assert stored is None
        return
    assert stored is not None
    assert unknown == UnknownThreshold(
        features=len(stored.features),
        threshold=stored.threshold,
        wrong_alarms=0.05,
        chosen_on=chosen_on,
        why_not=None,
    )
    # the network, trained further on other folds meanwhile, is the one that was saved
    paths = sorted(by_class.rglob("*.jpg"))[:4]
    features = torch.from_numpy(tlkit.load(run.folder).features(paths))
    streamed = [prediction.novelty for prediction in tlkit.load(run.folder).stream(paths)]
    assert stored(features).tolist() == pytest.approx(streamed, abs=1e-4)


def test_images_with_equal_bytes_are_represented_once() -> None:
    def image(content: int) -> Image:
        return Image(Sample(str(content), Path("a.jpg"), label=0), f"{content:064}", 10, 10)

    train = tuple(image(number // 2) for number in range(100))
    assert len(Dataset(("a",), Splits(train, (), ()), (), (), "").representatives) == 50
    many = tuple(map(image, range(MAX_REPRESENTATIVES + 500)))
    dataset = Dataset(("a",), Splits(many, (), ()), (), (), "")
    assert len(set(dataset.representatives)) == MAX_REPRESENTATIVES
    assert dataset.representatives is dataset.representatives
    few = many[:30]
    assert Dataset(("a",), Splits(few, (), ()), (), (), "").representatives is few
