"""Measures what an installation from the built wheels weighs, and how soon its commands answer.

uv run python -m benchmarks.install MODEL PHOTO --extra serve --extra onnx
uv run python -m benchmarks.install MODEL PHOTO --exported FILE.onnx --environment .venv

Each row is a fresh environment: tlkit alone, then with each extra. With --environment, each row is a command
in that environment, with the bytecode that Python writes on first use. MODEL is a model folder, FILE.onnx its
export.
"""

from __future__ import annotations

import os
import resource
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
MISSING = "no-such-model"


def install(folder: Path, wheels: Path, extra: str | None) -> Path:
    """Installs tlkit, with an extra, from wheels into a fresh environment; returns its folder."""
    environment = folder / (extra or "core")
    subprocess.run(["uv", "venv", "--quiet", environment], check=True)
    requirement = f"tlkit[{extra}]" if extra else "tlkit"
    line = ["uv", "pip", "install", "--quiet", "--python", environment / "bin" / "python"]
    line += ["--compile-bytecode", "--find-links", wheels, requirement]  # compiled, as pip does it
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


def seconds(*line: str | Path) -> tuple[float, float]:
    """Returns how long a command takes, and its processor time, each at best."""
    times = []
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        done = subprocess.run(line, check=False, capture_output=True, env=variables)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == (2 if MISSING in map(str, line) else 0), done.stderr
        times.append((wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime))
    walls, of_processor = zip(*times, strict=True)
    return min(walls), min(of_processor)


def print_starts(environment: Path, model: Path, exported: Path | None, photo: Path) -> None:
    """Prints how soon each command of an environment answers."""
    python, tlkit = environment / "bin" / "python", environment / "bin" / "tlkit"
    starts: list[tuple[str, list[str | Path]]] = [
        ("`import tlkit`", [python, "-c", "import tlkit"]),
        ("`tlkit --help`", [tlkit, "--help"]),
        ("`tlkit predict`, no such model", [tlkit, "predict", MISSING, photo]),
        ("`tlkit run`, no such recipe", [tlkit, "run", MISSING]),
        ("`tlkit cache list`", [tlkit, "cache", "list"]),
        ("`tlkit predict`, a model folder", [tlkit, "predict", model, photo]),
    ]
    if exported is not None:
        starts.append(("`tlkit predict`, an exported file", [tlkit, "predict", exported, photo]))
    typer.echo("| command | seconds | of processor time |\n| --- | ---: | ---: |")
    for title, line in starts:
        wall, of_processor = seconds(*line)
        typer.echo(f"| {title} | {wall:.2f} | {of_processor:.2f} |")


def main(
    model: Path,
    photo: Path,
    extra: Annotated[list[str] | None, typer.Option(help="An extra of tlkit, such as serve.")] = None,
    exported: Annotated[
        Path | None, typer.Option(help="The export of the model, with --environment.")
    ] = None,
    environment: Annotated[Path | None, typer.Option(help="Measure the starts in this one instead.")] = None,
) -> None:
    """Prints a row for each environment, and the largest packages of tlkit alone."""
    if environment is not None:
        print_starts(environment, model, exported, photo)
        return
    with tempfile.TemporaryDirectory() as temporary:
        wheels = Path(temporary) / "wheels"
        subprocess.run(
            ["uv", "build", "--quiet", "--all-packages", "--wheel", "--out-dir", wheels], check=True
        )
        typer.echo(HEADER)
        for name in (None, *(extra or ())):
            fresh = install(Path(temporary), wheels, name)
            sizes, python, tlkit = weigh(fresh), fresh / "bin" / "python", fresh / "bin" / "tlkit"
            rest = sum(sizes.values()) - sizes["torch"]
            times = (
                seconds(python, "-c", "import tlkit"),
                seconds(tlkit, "--help"),
                seconds(tlkit, "predict", model, photo),
            )
            shown = " | ".join(f"{wall:.2f} s" for wall, _ in times)
            title = f"`tlkit[{name}]`" if name else "`tlkit`"
            typer.echo(f"| {title} | {sizes['torch'] / 1e6:,.0f} MB | {rest / 1e6:,.0f} MB | {shown} |")
            if name is None:
                del sizes["torch"]
                largest = [f"{package} {size / 1e6:,.0f} MB" for package, size in sizes.most_common(LARGEST)]
        typer.echo(f"\nThe largest of all else in `tlkit`: {', '.join(largest)}.")


if __name__ == "__main__":
    typer.run(main)
