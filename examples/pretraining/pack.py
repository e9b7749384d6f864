"""Packs the network that `tlkit run examples/pretraining` trained as the weights of vgg16-quarter.

uv run python examples/pretraining/pack.py RUN_FOLDER [FILE]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file
from tlkit_catsdogs.vgg16_quarter import WEIGHTS


def pack(run: Path, file: Path) -> dict[str, str]:
    """Writes a run's weights as float16 under timm's own names; returns the metadata of the file."""
    results = json.loads((run / "results.json").read_text())
    description = json.loads((run / "run.json").read_text())
    (phase,) = results["phases"]
    state = load_file(run / "phases" / phase["name"] / "model" / "model.safetensors")
    half = {
        name.removeprefix("backbone."): value.half() if value.is_floating_point() else value
        for name, value in state.items()
    }
    metadata = {
        "format": "pt",
        "images": results["data"]["about"],
        "classes": ", ".join(results["classes"]),
        "accuracy": f"{phase['test']['accuracy']:.4f}",
        "accuracy_ci95": json.dumps(phase["test"]["ci95"]),
        "test_images": str(phase["test"]["n"]),
        "train_images": str(results["data"]["train"]),
        "epochs": str(phase["epochs"]),
        "seconds": f"{phase['seconds']['total']:.0f}",
        "machine": f"{description['machine']}, {description['device']}, {description['threads']} threads",
        "seed": str(description["seed"]),
        "versions": json.dumps(description["versions"]),
        "recipe": (run / "recipe.toml").read_text(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, file, metadata=metadata)
    return metadata


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else WEIGHTS
    packed = pack(Path(sys.argv[1]), target)
    size = target.stat().st_size
    print(f"{target}: {size:,} bytes, accuracy {packed['accuracy']} on {packed['test_images']} test images")  # noqa: T201
