"""Model cards, and sending them with a model to a stand-in of the hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import command
from hub import Hub, hub
from huggingface_hub import ModelCard
from small_runs import two_phases

import tlkit
from tlkit.experiment.record import RunRecord


@pytest.fixture(scope="module")
def run(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> tlkit.Run:
    """A run whose last phase timm can load."""
    recipe = two_phases(by_class, backbone={"name": "test_resnet", "weights": "none"}, epochs=1)
    return tlkit.run(recipe, out=tmp_path_factory.mktemp("card") / "run")


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as state:
        yield state


def environment(served: Hub, cache: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": served.url,
        "HF_TOKEN": "hf_standin",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(cache),
    }


def push(served: Hub, cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tlkit", "push", *map(str, arguments)]
    return subprocess.run(line, env=environment(served, cache), capture_output=True, text=True, check=False)


def test_a_card_has_the_numbers_of_the_results(run: tlkit.Run, tmp_path: Path) -> None:
    path = tlkit.card(run.folder, out=tmp_path / "new")
    assert path == tmp_path / "new" / "README.md"
    card, last = ModelCard.load(path), run.results.phases[-1]
    scores = last.measured
    assert card.data.pipeline_tag == "image-classification"
    assert (card.data.library_name, card.data.license, card.data.base_model) == ("timm", None, None)
    accuracy = next(item for item in card.data.eval_results if item.metric_type == "accuracy")
    assert run.recipe.data is not None and accuracy.dataset_type == run.recipe.data.source.name
    assert accuracy.metric_value == round(scores.accuracy, 4)
    low, high = scores.ci95
    assert accuracy.metric_name == (
        f"accuracy ({scores.n} test images, 95% interval {low:.3f} to {high:.3f})"
    )
    assert f"({scores.correct} of {scores.n}) | {low:.3f}–{high:.3f} |" in card.text
    assert "Measured on fewer than 20 images, so that their scores mean little: cat, dog." in card.text
    cats = scores.confusion_matrix(2)[0]
    assert (
        f"| cat | {run.results.data.per_class['cat'].train} | {sum(cats)} | {cats[0] / sum(cats):.3f} |"
        in card.text
    )
    assert 'timm.create_model("local-dir:FOLDER", pretrained=True)' in card.text
    assert "Training started with random weights" in card.text


def test_origin_and_licence_of_the_weights_are_named_as_they_are(run: tlkit.Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    for source, license_, expected in (
        (
            "hf-hub:timm/resnet18.a1_in1k",
            "Apache-2.0",
            {"license": "apache-2.0", "base_model": "timm/resnet18.a1_in1k"},
        ),
        (
            "https://example.org/w.pth",
            "free for research",
            {"license": "other", "license_name": "free for research"},
        ),
        ("local-dir:mine", None, {}),
    ):
        origin = tlkit.WeightsOrigin(source, license_)
        phases = tuple(phase.model_copy(update={"weights": origin}) for phase in run.results.phases)
        results = run.results.model_copy(update={"phases": phases})
        (folder / "results.json").write_text(results.model_dump_json(by_alias=True))
        text = tlkit.card(folder).read_text()
        metadata = yaml.safe_load(text.split("---")[1])
        licences = {
            key: metadata[key] for key in ("license", "license_name", "base_model") if key in metadata
        }
        assert licences == expected
        assert f"Training started with {source}, licence {license_ or 'unknown'}" in text.replace("\\", "")


def test_names_cannot_add_markup(by_class: Path, tmp_path: Path) -> None:
    for name, label in (("cat", "cat"), ("dog", "<b> | *dog* [c]")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for photo in sorted((by_class / name).iterdir())[:12]:
            shutil.copyfile(photo, tmp_path / "photos" / label / photo.name)
    backbone = {"name": "test_resnet", "weights": "none"}
    tlkit.run(two_phases(tmp_path / "photos", backbone=backbone, epochs=0), out=tmp_path / "run")
    card = tlkit.card(tmp_path / "run").read_text().split("---", 2)[2]
    assert r"\<b\> \| \*dog\* \[c\]" in card
    assert "<b>" not in card


def test_a_card_names_the_phase_that_trained_the_classifier(cross_validated: Path, tmp_path: Path) -> None:
    probe, fine_tune = RunRecord(cross_validated).phase_results
    assert not fine_tune.is_taken and fine_tune.parameters != probe.parameters
    for phase in (None, "fine-tune"):
        text = tlkit.card(cross_validated, phase=phase, out=tmp_path).read_text(encoding="utf-8")
        assert f"{probe.parameters.trainable:,} parameters were trained in the phase probe" in text
        assert f"{probe.parameters.frozen:,} were frozen" in text and "fine-tune" not in text


def test_a_pushed_folder_is_loaded_by_timm_and_by_tlkit(
    run: tlkit.Run, by_class: Path, served: Hub, tmp_path: Path
) -> None:
    sent = push(served, tmp_path / "hf", run.folder, "me/pets", "--private")
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.strip().startswith(f"{served.url}/me/pets/commit/")
    assert served.private == {"me/pets": True}
    files = served.files["me/pets"]
    assert {"README.md", "config.json", "model.safetensors"} <= files.keys()
    # the hub checks the card's metadata
    assert served.validated and all("model-index" in card for card in served.validated)

    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for name, content in files.items():
        (downloaded / name).write_bytes(content)
    paths = sorted(by_class.rglob("*.jpg"))[:4]
    expected = tlkit.load(run.folder, device="cpu").predict_proba(paths)
    np.testing.assert_array_equal(tlkit.load(downloaded, device="cpu").predict_proba(paths), expected)

    script = (
        "import sys, torch, timm; from timm.data import create_transform, resolve_data_config; "
        "from PIL import Image; m = timm.create_model('hf-hub:me/pets', pretrained=True).eval(); "
        "t = create_transform(**resolve_data_config({}, model=m)); "
        "x = torch.stack([t(Image.open(p).convert('RGB')) for p in sys.argv[1:]]); "
        "print(m(x).argmax(1).tolist())"
    )
    line = [sys.executable, "-c", script, *map(str, paths)]
    loaded = subprocess.run(
        line, env=environment(served, tmp_path / "hf"), capture_output=True, text=True, check=False
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == str(expected.argmax(1).tolist())


def test_a_refusal_is_said(run: tlkit.Run, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.refuse = 403
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    refused = command("push", run.folder, "me/pets")
    assert refused.returncode == 2
    assert "me/pets: the hub refuses it (" in refused.stderr and "hf auth login" in refused.stderr


def test_mistakes(run: tlkit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phase = command("card", run.folder, "--phase", "finetune")
    assert phase.returncode == 2 and "did you mean 'fine-tune'" in phase.stderr
    nowhere = command("card", tmp_path / "nowhere")
    assert nowhere.returncode == 2 and "nowhere does not exist" in nowhere.stderr
    taken = tmp_path / "file"
    taken.write_text("")
    unwritable = command("card", run.folder, "--out", taken)
    assert unwritable.returncode == 2 and "cannot be written" in unwritable.stderr
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    unreachable = command("push", run.folder, "me/pets")
    assert unreachable.returncode == 2 and "http://127.0.0.1:9 cannot be reached" in unreachable.stderr
