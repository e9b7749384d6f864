"""Makes the pictures of pages in docs: of an audit, of its review, and of a classifier that is served.

uv run python docs/pictures/pages.py audits/waste runs/waste photo.jpg
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1000, 900


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Runs a command of tlkit that serves a page, until the context ends; yields the page's address."""
    line = [sys.executable, "-u", "-m", "tlkit", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        words = (word for text in process.stdout for word in text.replace(": ", " ").split())
        try:
            yield next(word for word in words if word.startswith("http://"))
        finally:
            process.terminate()


def picture(page: Page, name: str) -> None:
    """Saves what the window shows."""
    page.screenshot(path=HERE / f"{name}.jpg", type="jpeg", quality=70)


def main(audit: Path, model: Path, photo: Path) -> None:
    """Makes all pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(300_000)  # the first heat map imports captum
        page.goto((audit / "audit.html").absolute().as_uri())
        picture(page, "audit")
        with serving("review", str(audit), "--model", str(model)) as address:
            page.goto(address)
            page.wait_for_load_state("networkidle")
            picture(page, "review")
        with serving("serve", str(model), "--port", "0") as address:
            page.goto(address)
            page.set_input_files("#files", photo)
            page.locator("article li").first.wait_for()
            page.locator("article .explain").click()
            page.locator("article .heat").wait_for()
            page.wait_for_load_state("networkidle")
            picture(page, "served")
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
