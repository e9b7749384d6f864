"""Measures what an installation from the built wheels weighs, and how soon its commands answer.

uv run python -m benchmarks.install MODEL PHOTO --extra serve --extra onnx

Each row is a fresh environment: tlkit alone, then with each extra. MODEL is a model folder.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

#: What torch installs: itself, and on Linux NVIDIA's libraries.
OF_TORCH = ("torch", "nvidia", "triton", "cuda")
LARGEST = 8
HEADER = """| installed | torch and its libraries | all else | `import tlkit` | `--help` | `predict` |
| --- | ---: | ---: | ---: | ---: | ---: |"""
REPEATS = 3


def install(folder: Path, wheels: Path, extra: str | None) -> Path:
    """Installs tlkit, with an extra, from wheels into a fresh environment; returns its folder."""
    environment = folder / (extra or "core")
    subprocess.run(["uv", "venv", "--quiet", environment], check=True)
    requirement = f"tlkit[{extra}]" if extra else "tlkit"
    line = ["uv", "pip", "install", "--quiet", "--python", environment / "bin" / "python"]
    # copied, so that each environment has its own size; compiled, as pip does it
    line += ["--link-mode", "copy", "--compile-bytecode", "--find-links", wheels, requirement]
    subprocess.run(line, check=True)
    return environment


def weigh(environment: Path) -> Counter[str]:
    """Returns the bytes of each package of an environment; torch's are one."""
    (packages,) = environment.glob("lib/python*/site-packages")
    sizes = Counter[str]()
    for file in packages.rglob("*"):
        if file.is_file():
            name = file.relative_to(packages).parts[0].partition("-")[0].partition(".")[0]
            sizes["torch" if name.startswith(OF_TORCH) and name != "torchvision" else name] += (
                file.stat().st_size
            )
    return sizes


def seconds(*line: str | Path) -> float:
    """Returns how long a command takes, at best."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(line, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


def main(
    model: Path,
    photo: Path,
    extra: Annotated[list[str] | None, typer.Option(help="An extra of tlkit, such as serve.")] = None,
) -> None:
    """Prints a row for each environment, and the largest packages of tlkit alone."""
    with tempfile.TemporaryDirectory() as temporary:
        wheels = Path(temporary) / "wheels"
        subprocess.run(
            ["uv", "build", "--quiet", "--all-packages", "--wheel", "--out-dir", wheels], check=True
        )
        typer.echo(HEADER)
        for name in (None, *(extra or ())):
            environment = install(Path(temporary), wheels, name)
            sizes, python, tlkit = (
                weigh(environment),
                environment / "bin" / "python",
                environment / "bin" / "tlkit",
            )
            rest = sum(sizes.values()) - sizes["torch"]
            times = (
                seconds(python, "-c", "import tlkit"),
                seconds(tlkit, "--help"),
                seconds(tlkit, "predict", model, photo),
            )
            shown = " | ".join(f"{value:.2f} s" for value in times)
            title = f"`tlkit[{name}]`" if name else "`tlkit`"
            typer.echo(f"| {title} | {sizes['torch'] / 1e6:,.0f} MB | {rest / 1e6:,.0f} MB | {shown} |")
            if name is None:
                del sizes["torch"]
                largest = [f"{package} {size / 1e6:,.0f} MB" for package, size in sizes.most_common(LARGEST)]
        typer.echo(f"\nThe largest of all else in `tlkit`: {', '.join(largest)}.")


if __name__ == "__main__":
    typer.run(main)
