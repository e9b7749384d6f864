"""Builds a page that classifies photos in the browser: no server computes anything, and no photo leaves it.

python build.py pets.onnx --out site

It fetches onnxruntime-web from the npm registry (`npm` must be installed), and writes a folder for any web
host. The page can also be opened as a file, for which its parts are in scripts: browsers let a file read no
others.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import onnx

HERE = Path(__file__).parent
PACKAGE = "onnxruntime-web@1.30.0"
LOADER, MODULE, BINARY = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"


def build(model: Path, out: Path) -> None:
    """Writes the page for an ONNX file of `tlkit export --format onnx`."""
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    description = json.loads(metadata.get("tlkit", "{}"))
    if description.get("input") != "images":
        raise SystemExit(f"{model} takes no images: tlkit export RUN --format onnx writes a file that does")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "app.js"):
        shutil.copyfile(HERE / name, out / name)
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", "--prefer-offline", PACKAGE],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(Path(folder) / packed.stdout.strip()) as archive:
            runtime = {name: read(archive, f"package/dist/{name}") for name in (LOADER, MODULE, BINARY)}
    (out / LOADER).write_bytes(runtime[LOADER])
    write_script(
        out / "runtime.js", RUNTIME={"module": text(runtime[MODULE]), "binary": text(runtime[BINARY])}
    )
    write_script(out / "model.js", MODEL={"description": description, "content": text(model.read_bytes())})


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """Returns a file of an archive."""
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()


def text(content: bytes) -> str:
    """Returns bytes as base64."""
    return base64.b64encode(content).decode()


def write_script(path: Path, **constants: object) -> None:
    """Writes a script that defines constants."""
    path.write_text("".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Builds a page that classifies photos in the browser.")
    parser.add_argument("model", type=Path, help="a file of tlkit export --format onnx")
    parser.add_argument("--out", type=Path, default=Path("site"), help="the folder to write")
    arguments = parser.parse_args()
    build(arguments.model, arguments.out)
    print(f"{arguments.out / 'index.html'}: open it, or put the folder on any web host")  # noqa: T201
