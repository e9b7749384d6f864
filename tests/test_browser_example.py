"""The example of a page that classifies photos by itself, in a real browser."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
from browsers import browser as browser
from onnx_files import colours, save_onnx
from PIL import Image
from playwright.sync_api import Browser

import tlkit
from tlkit.inference.onnx_graph import surround
from tlkit.model.description import Calibration

BUILD = Path(__file__).parents[1] / "examples" / "browser" / "build.py"


def save_whole(folder: Path, calibration: Calibration) -> Path:
    """Writes a file with a network that tells colours and everything around it."""
    content = surround(colours(8), tlkit.Preprocess(size=8), calibration, None)
    return save_onnx(folder / "colours.onnx", content, input="images")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with a network that tells colours, built with onnxruntime-web from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: install Debian's package npm")
    folder = tmp_path_factory.mktemp("browser")
    model = save_whole(folder, Calibration(temperature=0.1, reject_below=0.5))
    runpy.run_path(str(BUILD))["build"](model, folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_a_photo_may_have_several_labels(browser: Browser, site: Path, tmp_path: Path) -> None:
    calibration = Calibration(temperature=0.1, thresholds=(0.6, 0.6, 0.6))
    several = shutil.copytree(site, tmp_path / "site")
    module = runpy.run_path(str(BUILD))
    content = save_whole(tmp_path, calibration).read_bytes()
    description = {"classes": ["red", "green", "blue"]}
    module["write_script"](
        several / "model.js", MODEL={"description": description, "content": module["text"](content)}
    )
    page = browser.new_page()
    page.goto((several / "index.html").as_uri())
    status = page.locator("#status")
    for colour, labels in (("magenta", "red, blue"), ("lime", "green"), ("black", "none of the labels")):
        photo = tmp_path / f"{colour}.png"
        Image.new("RGB", (30, 20), colour).save(photo)
        page.set_input_files("#files", photo)
        status.filter(has_text=f"{colour}.png: {labels}").wait_for()
    page.evaluate("MODEL.description.classes = null")
    page.set_input_files("#files", tmp_path / "lime.png")
    page.locator("article.refused").wait_for()
    assert "The network failed: " in page.locator("article.refused p").inner_text()
    page.close()


def test_a_photo_is_classified_without_a_server(browser: Browser, site: Path, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 800})
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((site / "index.html").as_uri())
    status = page.locator("#status")
    status.filter(has_text="Ready: red, green, blue").wait_for()
    for number, (colour, label) in enumerate((("blue", "blue"), ("red", "red"), ("grey", "unclassified"))):
        photo = tmp_path / f"{number}.png"
        Image.new("RGB", (300 - 100 * number, 200), colour).save(photo)
        page.set_input_files("#files", photo)
        status.filter(has_text=f"{number}.png: {label}").wait_for()
        assert page.locator("article h2").first.inner_text() == label
    data = page.evaluate_handle(
        """content => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "dropped.png", {type: "image/png"}));
            return data;
        }""",
        list((tmp_path / "0.png").read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    status.filter(has_text="dropped.png: blue").wait_for()
    text = tmp_path / "notes.jpg"
    text.write_text("not a photo")
    page.set_input_files("#files", text)
    page.locator("article.refused").wait_for()
    assert "no photo that this browser can read" in page.locator("article.refused p").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert errors == []
    assert [url for url in requests if not url.startswith((site.as_uri(), "blob:", "data:"))] == []
    page.close()


def test_a_file_for_the_network_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="takes no images"):
        runpy.run_path(str(BUILD))["build"](save_onnx(tmp_path / "alone.onnx"), tmp_path / "site")
