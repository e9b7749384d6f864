"""Where an extra is missing, one sentence says so, with the command that installs it."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from commands import command
from small_runs import write_recipe

EXTRAS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
#: For each extra, a module that it installs, and a command that takes it.
CASES: dict[str, tuple[str, str]] = {
    "heif": ("pillow_heif", "predict {fitted} photo.heic"),
    "huggingface": ("", "plugins blocks transformers:./vit"),
    "lite": ("", "fit {photos} --backbone efficientnet-lite0"),
    "mlflow": ("mlflow", "run recipe.toml --plan --set track.with=['mlflow']"),
    "onnx": ("onnxruntime", "export {fitted} --format onnx --out pets.onnx"),
    "openvino": ("openvino", "export {fitted} --format openvino --out pets"),
    "parquet": ("pyarrow", "manifest recipe.toml --out images.parquet"),
    "ray": ("", "features recipe.toml --set compute.engine=ray"),
    "review": ("uvicorn", "review audits/pets"),
    "s3": ("s3fs", "features recipe.toml"),
    "serve": ("uvicorn", "serve {fitted}"),
    "tensorboard": ("tensorboard", "run recipe.toml --plan --set track.with=['tensorboard']"),
    "tune": ("optuna", "tune recipe.toml --space head.dropout=0:0.8"),
    "wandb": ("wandb", "run recipe.toml --plan --set track.with=['wandb']"),
}


def test_every_extra_has_a_case() -> None:
    assert {*CASES} == {*EXTRAS} - {"all"}
    (everything,) = EXTRAS["all"]
    assert everything == f"tlkit[{','.join(CASES)}]"


@pytest.mark.parametrize("extra", CASES)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    extra: str,
    fitted: Path,
    few_photos: Path,
    by_class: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, line = CASES[extra]
    monkeypatch.chdir(tmp_path)
    if module:
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    else:
        plugin = f"tlkit-{extra}"
        monkeypatch.setitem(sys.modules, f"tlkit_{extra}", None)
        others = [entry for entry in entry_points(group="tlkit") if entry.dist and entry.dist.name != plugin]
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: others if group == "tlkit" else []
        )
    if extra == "s3":
        monkeypatch.setenv("TLKIT_CACHE", "s3://bucket/tlkit")
    write_recipe(tmp_path / "recipe.toml", few_photos, "residual")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    ended = command(*line.format(fitted=fitted, photos=by_class).split())
    assert f"pip install 'tlkit[{extra}]'" in ended.stderr + ended.stdout, ended
    assert ended.returncode == (1 if extra == "heif" else 2)
    assert "Traceback" not in ended.stderr
