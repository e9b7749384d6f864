"""The report in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsers import browser as browser
from playwright.sync_api import Browser

from tlkit.reporting import render

SCRIPT = Path(render.__file__).parent / "templates" / "page.js"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser: Browser, embedded: Path, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((embedded / "report.html").as_uri())
    assert page.inner_text("h1").startswith("About ")
    broken = (
        "[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"
    )
    assert page.evaluate("document.images.length") > 60
    assert page.evaluate(broken) == []
    dead = (
        "[...document.querySelectorAll('a[href]')].map(link => link.getAttribute('href'))"
        ".filter(href => !href.startsWith('#') || !document.getElementById(href.slice(1)))"
    )
    assert page.evaluate("document.querySelectorAll('a[href]').length") >= 5
    assert page.evaluate(dead) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    wide = (
        "[...document.querySelectorAll('body *')].filter(element => !element.closest('.scroll') "
        "&& element.getBoundingClientRect().right > 375).map(element => element.tagName)"
    )
    assert page.evaluate(wide) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 26)"
    assert dark == (scheme == "dark")
    page.click("#per-class th:has-text('recall')")
    recalls = page.locator("#per-class tbody td:nth-child(4)").all_inner_texts()
    assert recalls == sorted(recalls) and page.get_attribute("[aria-sort]", "aria-sort") == "ascending"
    page.click("#answer th:has-text('accuracy') >> nth=0")
    accuracies = page.locator("#answer table tbody td:nth-child(2)").all_inner_texts()
    assert len(accuracies) == 4 and accuracies == sorted(accuracies)  # the baselines stay below
    photo = page.locator("#mistakes .photos img").first
    photo.press("Enter")
    assert page.inner_text("dialog p") == page.locator("#mistakes figcaption").first.inner_text()
    page.keyboard.press("Escape")
    assert not page.is_visible("dialog")
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_tables_are_sorted_by_value_and_not_by_text(browser: Browser) -> None:
    rows = (("a", 92e6, "92 MB"), ("b", 1.2e9, "1.2 GB"), ("c", 8e6, "8 MB"))
    cells = "".join(f"<tr><td>{name}</td><td data-value={size}>{text}</td></tr>" for name, size, text in rows)
    page = browser.new_page()
    page.set_content(
        '<table class="sortable"><thead><tr><th>name</th><th>weights</th></tr></thead>'
        f"<tbody>{cells}</tbody></table>"
    )
    page.add_script_tag(path=SCRIPT)
    page.click("th:has-text('weights')")
    assert page.locator("td:first-child").all_inner_texts() == ["c", "a", "b"]
    page.close()


def test_charts_follow_the_reader_s_colours(browser: Browser, embedded: Path) -> None:
    chart = (embedded / "pictures" / "accuracies.svg").as_uri()
    colours = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(chart)
        colours[scheme] = page.evaluate("getComputedStyle(document.documentElement).color")
        page.close()
    assert colours["light"] != colours["dark"]


def test_the_page_on_paper(browser: Browser, embedded: Path) -> None:
    page = browser.new_page()
    page.goto((embedded / "report.html").as_uri())
    page.emulate_media(media="print")
    assert not page.is_visible("nav")
    assert len(page.pdf(format="A4")) > 100_000
    page.close()
