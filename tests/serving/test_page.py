"""The page of a service, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsers import browser as browser
from playwright.sync_api import Browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_photo_is_labelled_and_explained(
    browser: Browser, address: str, photos_of_both: list[Path], tmp_path: Path, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    messages: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"http://{address}/")
    page.set_input_files("#files", photos_of_both[0])
    article = page.locator("article").first
    article.locator("li").first.wait_for()
    assert article.locator("h2").inner_text().split(",")[0] in ("cat", "dog", "unknown")
    assert article.locator("li").count() == 2
    article.locator(".explain").click()
    heat = article.locator(".heat")
    heat.wait_for()
    assert heat.evaluate("image => image.decode().then(() => image.naturalWidth)") == 128
    text = tmp_path / "notes.jpg"
    text.write_text("not a photo")
    page.set_input_files("#files", text)
    refused = page.locator("article.refused")
    refused.wait_for()
    assert "cannot be read: not an image" in refused.locator(".remark").inner_text()
    assert page.locator("#status").inner_text().startswith("notes.jpg: ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert messages == []
    assert [url for url in requests if not url.startswith((f"http://{address}/", "blob:", "data:"))] == []
    page.close()


def test_a_photo_is_dropped(browser: Browser, address: str, photos_of_both: list[Path]) -> None:
    page = browser.new_page()
    page.goto(f"http://{address}/")
    content = list(photos_of_both[0].read_bytes())
    data = page.evaluate_handle(
        """content => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "cat.jpg", {type: "image/jpeg"}));
            return data;
        }""",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    page.locator("article li").first.wait_for()
    assert page.locator("#status").inner_text().startswith("cat.jpg: ")
    page.close()
