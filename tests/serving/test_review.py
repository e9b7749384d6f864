"""The review of an audit: in a real browser, and by requests that the page would not send."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from audits import CLASSES, write_audit
from browsers import browser as browser
from commands import command
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

import tlkit
from tlkit.analysis.audit_file import Unlike
from tlkit.analysis.audit_text import describe_audit
from tlkit.data.corrections_file import read_corrections
from tlkit.errors import AuditFileError
from tlkit.model.classifier import Classifier
from tlkit.model.description import Calibration
from tlkit.model.saving import save_model
from tlkit.plugins.loader import load_registry
from tlkit.reporting.audit_page import write_audit_page
from tlkit.serving.labelling import Labelling
from tlkit.serving.review import Review
from tlkit.serving.suspects import InvalidDecision, Verdict
from tlkit.utils.csv_cells import write_rows
from tlkit.utils.hashing import file_sha256
from tlkit.utils.json_files import write_json


@dataclass
class Server:
    """`tlkit review` in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    @classmethod
    def start(cls, audit: Path, *options: str) -> Server:
        line = [sys.executable, "-m", "tlkit", "review", str(audit), *options]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        for printed in process.stdout:
            if printed.startswith("Open "):
                return cls(process, printed.split()[1])
        raise AssertionError(f"it ended with {process.wait()}")

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=60)
        return rest


@pytest.fixture(scope="module")
def audit(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    return write_audit(folder / "audit", folder / "photos", datasets / "flowers")


@pytest.fixture(scope="module")
def server(audit: Path) -> Iterator[Server]:
    started = Server.start(audit)
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.fixture
def copied(audit: Path, tmp_path: Path) -> Path:
    """The audit, with no decision yet."""
    shutil.copyfile(audit / "audit.json", tmp_path / "audit.json")
    return tmp_path


def rows(audit: Path) -> list[dict[str, str]]:
    with (audit / "corrections.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def press(page: Page, key: str, decided: int) -> None:
    """Presses a key, and waits until so many suspects are decided."""
    page.keyboard.press(key)
    expect(page.locator("#decided")).to_have_text(f"{decided} of 20 decided")


def test_twenty_decisions_by_keyboard_with_a_kill_in_the_middle(browser: Browser, copied: Path) -> None:
    messages: list[str] = []
    requested: list[str] = []
    page = browser.new_page(viewport={"width": 375, "height": 740}, color_scheme="dark")
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("console", lambda message: messages.append(message.text))
    page.on("request", lambda request: requested.append(request.url))
    server = Server.start(copied)
    try:
        page.goto(server.address)
        page.wait_for_selector("#suspect:not([hidden])")
        assert (
            page.inner_text("#question") == "Labelled daisy, probably dandelion (probability of daisy: 0.03)"
        )
        for count, key in enumerate("kxnkx", 1):
            press(page, key, count)
        # the suggested class, the third of the others, and one that is typed
        page.keyboard.press("r")
        press(page, "Enter", 6)
        page.keyboard.press("r")
        press(page, "3", 7)
        page.keyboard.press("r")
        page.keyboard.type("tul")
        press(page, "Enter", 8)
        press(page, "u", 7)
        assert page.inner_text("#position") == "8 / 20"
        press(page, "k", 8)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert messages == []
        assert all(url.startswith(server.address) or url == "data:," for url in requested)
        server.end(signal.SIGKILL)
        page.keyboard.press("k")
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem").startswith("The server does not answer. Start tlkit review again")

        server = Server.start(copied)
        page.goto(server.address)
        page.wait_for_selector("#suspect:not([hidden])")
        assert page.inner_text("#decided") == "8 of 20 decided"
        assert page.inner_text("#position") == "9 / 20"
        for count, key in enumerate("kkkkkk", 9):
            press(page, key, count)
        assert page.inner_text("#question").startswith("The same photo? (correlation 0.97)")
        press(page, "s", 15)
        page.keyboard.press("o")
        for count, key in enumerate("sskkx", 16):
            press(page, key, count)
        assert page.inner_text("#end-title") == "All 20 are decided"
        assert str(copied / "corrections.csv") == page.inner_text("#file")
        ended = server.end(signal.SIGINT)
    finally:
        server.process.kill()
        page.close()
    assert server.process.returncode == 0
    assert ended.splitlines() == [
        "20 of 20 suspects are decided.",
        f"To train with these decisions: tlkit run RECIPE --set data.corrections={copied}/corrections.csv",
    ]
    written = rows(copied)
    assert len(written) == 22 and written[8]["decision"] == "undo"  # of the eighth, which was decided again
    decided = read_corrections(copied / "corrections.csv").decisions
    assert len(decided) == len({row.images for row in decided}) == 20
    suspects = Review(copied).suspects
    assert [row.images for row in decided] == [suspect.images for suspect in suspects]
    assert [row.new_label for row in decided[5:8]] == ["dandelion", "sunflower", ""]
    assert decided[14].image == suspects[14].image and decided[15].image == suspects[15].other


def test_the_page_at_1200_pixels(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 850})
    page.goto(server.address)
    page.wait_for_selector("#suspect:not([hidden])")
    for _ in range(14):
        page.keyboard.press("ArrowRight")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert page.evaluate("document.images.length") == 5
    unnamed = "[...document.querySelectorAll('img')].filter(image => !image.alt).length"
    assert page.evaluate(unnamed) == 0
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an untrained network for the audit's classes."""
    folder, registry = tmp_path_factory.mktemp("review-model"), load_registry()
    table = {"name": "test_resnet", "weights": "none"}
    backbone = registry.make("backbone", "test_resnet", {"weights": "none"})
    head = registry.make("head", "linear", {}, backbone, CLASSES)
    calibration = Calibration(temperature=1.0, reject_below=None, mirror=False)
    save_model(
        folder / "model",
        Classifier(backbone, head),
        backbone,
        backbone_table=table,
        head_table={"name": "linear"},
        classes=CLASSES,
        calibration=calibration,
        unknown=None,
    )
    return folder / "model"


def test_heat_maps_are_shown_and_hidden(browser: Browser, copied: Path, model: Path) -> None:
    server = Server.start(copied, "--model", str(model))
    try:
        page = browser.new_page()
        page.goto(server.address)
        page.wait_for_selector("#suspect:not([hidden])")
        suggested = Review(copied).suspects[0].suggested
        photo = page.get_attribute("#photos img", "src")
        page.keyboard.press("h")
        expect(page.locator("#photos img")).to_have_attribute("alt", re.compile(f"looks for {suggested} in"))
        expect(page.locator("#photos figcaption")).to_contain_text(f"bright: what speaks for {suggested}")
        expect(page.locator("#status")).to_contain_text("Computing the heat map")
        page.locator("#photos img").evaluate("image => image.decode()")  # waits until it is there
        expect(page.locator("#status")).to_have_text("")
        # on the page is what tlkit explain draws
        image = Review(copied).suspects[0].image
        answer = requests.get(f"{server.address}heat?image={image}&label={suggested}", timeout=60)
        shown = np.asarray(Image.open(io.BytesIO(answer.content)))
        path = Review(copied).audit.root
        assert path is not None
        expected = tlkit.explain(tlkit.load(model), Path(path) / image, label=suggested).overlay()
        assert np.abs(shown.astype(int) - expected).max() <= 1
        page.keyboard.press("h")
        assert page.get_attribute("#photos img", "src") == photo
        page.keyboard.press("h")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#heat")).to_have_attribute("aria-pressed", "false")
        page.close()
        for query, status in ((f"image={image}&label=cactus", 409), ("image=../audit.json&label=rose", 404)):
            assert requests.get(f"{server.address}heat?{query}", timeout=60).status_code == status
    finally:
        server.process.kill()
        server.process.communicate()


def test_without_a_classifier_there_is_no_button(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.goto(server.address)
    page.wait_for_selector("#suspect:not([hidden])")
    expect(page.locator("#heat")).to_be_hidden()
    page.keyboard.press("h")
    assert "photo?" in str(page.get_attribute("#photos img", "src"))
    page.close()


def test_of_classes_that_begin_with_digits_the_one_that_is_typed_is_selected(
    browser: Browser, server: Server
) -> None:
    def renamed(route: Route) -> None:
        names = dict(zip(CLASSES, ["1", "2", "10", "3d", "21"], strict=True))
        answer = route.fetch()
        text = re.sub(
            "|".join(map('"{}"'.format, CLASSES)), lambda m: f'"{names[m[0][1:-1]]}"', answer.text()
        )
        route.fulfill(response=answer, body=text)

    page = browser.new_page()
    page.route("**/suspects", renamed)
    page.goto(server.address)
    expect(page.locator("#question")).to_contain_text("Labelled 1, probably 2")
    page.keyboard.press("r")
    chosen = page.locator("#classes [aria-selected=true]")
    expect(page.locator("#classes li")).to_have_text(["2", "10", "3d", "21"])  # and no digit before them
    for typed, selected in (("2", ["2"]), ("10", ["10"]), ("3", ["3d"]), ("1", []), ("1!", [])):
        page.fill("#filter", typed)
        expect(chosen).to_have_text(selected)
    page.fill("#filter", "1")
    page.keyboard.press("Enter")  # it is the label already: 10 is not meant
    expect(page.locator("#relabel")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(chosen).to_have_text(["10"])
    page.close()


def test_only_the_printed_address_answers(server: Server) -> None:
    base, token = server.address.rstrip("/").rsplit("/", 1)
    port = base.rsplit(":", 1)[1]
    assert base.startswith("http://127.0.0.1:") and len(token) >= 32
    for path in (
        "",
        "/",
        "/suspects",
        f"/{token[:-1]}/suspects",
        f"/x{token}/",
        "/favicon.ico",
        "/docs",
        "/é",
    ):
        assert requests.get(base + path, timeout=60).status_code == 403, path
    for path in ("docs", "openapi.json", "../audit.json", "review.py"):
        assert requests.get(server.address + path, timeout=60).status_code in (403, 404), path
    for headers in (
        {"Host": f"attacker.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
    ):
        assert requests.post(server.address + "undo", json={}, headers=headers, timeout=60).status_code == 403
    allowed = requests.get(server.address, headers={"Origin": base}, timeout=60)
    assert allowed.status_code == 200
    assert "default-src 'none'" in allowed.headers["Content-Security-Policy"]
    assert allowed.headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in allowed.headers


def explains(route: Route) -> None:
    """Answers as a review with a classifier, without loading one."""
    answer = route.fetch()
    route.fulfill(response=answer, json={**answer.json(), "explains": True})


def test_labels_are_given_to_the_images_of_a_list(browser: Browser, audit: Path, tmp_path: Path) -> None:
    photos = [tmp_path / "new" / f"{number}.jpg" for number in range(3)]
    before = [tmp_path / "old" / "1.jpg", tmp_path / "old" / "2.jpg"]
    for number, photo in enumerate([*photos, *before]):
        photo.parent.mkdir(exist_ok=True)
        shutil.copyfile(audit.parent / "photos" / "train" / "rose" / f"{30 + number % 4}.jpg", photo)
    with (tmp_path / "next.csv").open("w", newline="") as file:
        listed = [[str(photo), "rose", 0.5] for photo in photos[:2]]
        write_rows(file, [["path", "class_1", "probability_1"], *listed, [str(photos[2]), "", ""]])
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nold/1.jpg,catfish\nold/2.jpg,type\n")
    server = Server.start(tmp_path / "next.csv")
    page = browser.new_page()
    page.route("**/suspects", explains)
    try:
        page.goto(server.address)
        expect(page.locator("#question")).to_have_text("Which class is it? Probably rose (probability 0.50)")
        expect(page.locator("[data-decision=keep]")).to_be_hidden()
        expect(page.locator("#heat")).to_be_visible()
        for key in ("k", "x"):  # there is no label to keep, and the photo stays
            page.keyboard.press(key)
        page.keyboard.press("r")
        page.keyboard.press("Enter")
        expect(page.locator("#decided")).to_have_text("1 of 3 decided")
        assert labels.read_text() == "path,label\nold/1.jpg,catfish\nold/2.jpg,type\nnew/0.jpg,rose\n"
        page.keyboard.press("n")
        expect(page.locator("#decided")).to_have_text("2 of 3 decided")
        expect(page.locator("#question")).to_have_text("Which class is it?")
        expect(page.locator("#heat")).to_be_hidden()  # there is no class that it could be about
        # the third class; new ones: they begin with a digit, contain a class, are part of a class's name
        for keys, name in (("3", "type"), ("3d", "3d"), ("type1", "type1"), ("fish", "fish")):
            page.keyboard.press("r")
            page.keyboard.type(keys)
            selected = name if keys == "3" else f"{name} (new class)"
            expect(page.locator("#classes [aria-selected=true]")).to_have_text(selected)
            page.keyboard.press("Enter")
            expect(page.locator("#decided")).to_have_text("3 of 3 decided")
            assert labels.read_text().endswith(f"new/0.jpg,rose\nnew/2.jpg,{name}\n")
            page.keyboard.press("u")
            expect(page.locator("#decided")).to_have_text("2 of 3 decided")
            assert labels.read_text().endswith("new/0.jpg,rose\n")
        server.end(signal.SIGKILL)
    finally:
        server.process.kill()
        page.close()
    again = Labelling(tmp_path / "next.csv")
    assert again.verdicts() == [Verdict("relabel", "new/0.jpg", "rose"), None, None]
    assert again.classes == ["catfish", "rose", "type"]
    source = load_registry().make("source", "csv", {}, tmp_path)
    labelled = {sample.id: source.classes[sample.label] for sample in source.samples}
    assert labelled == {"old/1.jpg": "catfish", "old/2.jpg": "type", "new/0.jpg": "rose"}
    photos[1].write_bytes(b"another photo")
    for image, decision, label in (
        ("new/1.jpg", "relabel", "rose"),  # it has changed
        ("new/2.jpg", "relabel", "rose"),  # another one
        ("new/1.jpg", "keep", ""),
        ("new/1.jpg", "relabel", ""),
        ("new/1.jpg", "relabel", "a\nb"),
    ):
        with pytest.raises(InvalidDecision):
            again.decide(1, image, decision, label)  # type: ignore[arg-type]


@pytest.fixture
def unlabelled(audit: Path, tmp_path: Path) -> Path:
    """A list of two images, without suggestions."""
    for number in range(2):
        photo = audit.parent / "photos" / "train" / "rose" / f"{30 + number}.jpg"
        shutil.copyfile(photo, tmp_path / f"{number}.jpg")
    (tmp_path / "next.csv").write_text(f"path\n{tmp_path}/0.jpg\n{tmp_path}/1.jpg\n")
    return tmp_path / "next.csv"


def test_undo_gives_an_image_the_label_that_it_had(unlabelled: Path) -> None:
    labelling = Labelling(unlabelled)
    for index, label in ((0, "rose"), (1, "rose"), (0, "tulip"), (0, ""), (0, "rose")):
        labelling.decide(index, f"{index}.jpg", "relabel" if label else "unsure", label)
    rose, other = Verdict("relabel", "0.jpg", "rose"), Verdict("relabel", "1.jpg", "rose")
    for index, verdict in ((0, Verdict("unsure", "0.jpg", "")), (0, Verdict("relabel", "0.jpg", "tulip"))):
        assert labelling.undo() == index
        assert labelling.verdicts() == [verdict, other]
    assert labelling.undo() == 0
    assert labelling.verdicts() == Labelling(unlabelled).verdicts() == [rose, other]
    assert [labelling.undo() for _ in range(3)] == [1, 0, None]
    assert labelling.verdicts() == [None, None]


def test_a_label_keeps_what_another_review_or_an_editor_has_written(unlabelled: Path) -> None:
    first, second = Labelling(unlabelled), Labelling(unlabelled)
    first.decide(0, "0.jpg", "relabel", "rose")
    labels = unlabelled.with_name("labels.csv")
    with labels.open("a") as file:
        file.write("old.jpg,daisy\n")
    second.decide(1, "1.jpg", "relabel", "tulip")
    assert labels.read_text() == "path,label\n0.jpg,rose\nold.jpg,daisy\n1.jpg,tulip\n"
    first.undo()
    assert labels.read_text() == "path,label\nold.jpg,daisy\n1.jpg,tulip\n"


def test_rows_of_labels_may_have_other_forms_and_no_label(
    unlabelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = unlabelled.with_name("labels.csv")
    labels.write_text(f"path,label\n./0.jpg,rose\n{unlabelled.parent}/1.jpg,\n")
    (unlabelled.parent / "below").mkdir()
    monkeypatch.chdir(unlabelled.parent / "below")
    labelling = Labelling(Path("..") / "next.csv")
    assert labelling.verdicts() == [Verdict("relabel", "0.jpg", "rose"), None]
    assert labelling.classes == ["rose"]
    labelling.decide(1, "1.jpg", "relabel", "tulip")
    labelling.decide(0, "0.jpg", "relabel", "daisy")
    assert labels.read_text() == "path,label\n1.jpg,tulip\n0.jpg,daisy\n"


@pytest.mark.parametrize(
    ("listed", "labels", "problem"),
    [
        ("image\n1.jpg\n", None, "has no column 'path'"),
        ("path\n/etc/passwd\n", None, "is not in .*, its folder"),
        ("path\n{folder}/../other/1.jpg\n", None, "is not in .*, its folder"),
        ("path\n{folder}/missing.jpg\n", None, "missing.jpg, from .*, cannot be read: No such file"),
        ("path\n{folder}/sparse.jpg\n", None, "sparse.jpg, from .*, cannot be read: the file is larger than"),
        ('path\n"{folder}/a\rb.jpg"\n', None, r"the name 'a\\rb.jpg' has control characters: rename"),
        ("path\n", "path,label\na.jpg,rose\n./a.jpg,rose\n", "has 'a.jpg' twice: keep one"),
        ("path\n", "path,label,split\n", "has the columns path, label, split"),
    ],
)
def test_a_list_that_cannot_be_labelled_is_a_clear_error(
    tmp_path: Path, listed: str, labels: str | None, problem: str
) -> None:
    (tmp_path / "sparse.jpg").touch()
    os.truncate(tmp_path / "sparse.jpg", 2**30)
    (tmp_path / "next.csv").write_text(listed.format(folder=tmp_path), newline="")
    if labels is not None:
        (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(AuditFileError, match=problem):
        Labelling(tmp_path / "next.csv")


@pytest.mark.parametrize("name", ["../audit.json", "/etc/passwd", "train/daisy/999.jpg", "audit.json", ""])
def test_only_images_that_the_audit_names_are_served(server: Server, name: str) -> None:
    answer = requests.get(server.address + "photo", params={"image": name, "size": "large"}, timeout=60)
    assert answer.status_code == 404


def test_decisions_that_are_not_possible_are_refused(server: Server, audit: Path) -> None:
    valid = {"suspect": 0, "image": "train/daisy/0.jpg", "decision": "keep", "new_label": ""}
    for change, status in (
        ({"suspect": 20}, 409),
        ({"suspect": -1}, 409),
        ({"image": "train/rose/2.jpg"}, 409),
        ({"decision": "relabel", "new_label": "oak"}, 409),
        ({"decision": "relabel"}, 409),
        ({"new_label": "rose"}, 409),
        ({"decision": "same-photo"}, 409),
        ({"decision": "undo"}, 409),
        ({"decision": "delete"}, 422),
        ({"path": "x"}, 422),
    ):
        answer = requests.post(server.address + "decisions", json={**valid, **change}, timeout=60)
        assert answer.status_code == status, change
    assert requests.post(server.address + "undo", json={}, timeout=60).json()["changed"] is None
    assert not (audit / "corrections.csv").exists()


def test_a_photo_that_has_changed_is_said_and_cannot_be_decided_about(audit: Path, server: Server) -> None:
    photo = audit.parent / "photos" / "train" / "daisy" / "5.jpg"
    content = photo.read_bytes()
    photo.write_bytes(content + b" ")
    try:
        address = server.address + "photo"
        shown = requests.get(address, params={"image": "train/daisy/5.jpg", "size": "large"}, timeout=60)
        assert (shown.status_code, shown.json()) == (409, {"error": "the file has changed since it was read"})
        decision = {"suspect": 5, "image": "train/daisy/5.jpg", "decision": "keep"}
        refused = requests.post(server.address + "decisions", json=decision, timeout=60)
        assert refused.status_code == 409 and "has changed: audit the images again" in refused.json()["error"]
    finally:
        photo.write_bytes(content)


def test_previews_are_small_and_upright(audit: Path, copied: Path) -> None:
    name, photo = "train/daisy/0.jpg", copied / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (3000, 1500)).save(photo, exif=exif)
    read = Review(audit).audit
    turned = read.images[name].model_copy(update={"path": str(photo), "sha256": file_sha256(photo)})
    write_json(copied / "audit.json", read.model_copy(update={"images": {**read.images, name: turned}}))
    content = Review(copied).photos.preview(name, "large")
    assert content is not None
    with Image.open(io.BytesIO(content)) as preview:
        assert preview.size == (320, 640) and not preview.getexif()


def test_suspects_whose_image_is_left_out_already_are_not_asked_about(copied: Path) -> None:
    review = Review(copied)
    pair = review.suspects[14]
    review.decide(14, pair.image, "remove", "")
    unlike = Unlike(image=pair.image, label="rose", similarity=0.1)
    write_json(copied / "audit.json", review.audit.model_copy(update={"unlike": (unlike,)}))
    verdicts = Review(copied).verdicts()
    assert verdicts[14] == Verdict("remove", pair.image, "")
    assert verdicts[-1] == Verdict(None, pair.image, "")
    assert verdicts.count(None) == 17


def test_a_label_that_its_copy_contradicts_is_one_question_with_the_pair(copied: Path) -> None:
    audit = Review(copied).audit
    tulip, rose = audit.pairs[1].images
    assert (audit.images[tulip].label, audit.images[rose].label) == ("tulip", "rose")
    before = audit.labels.suspects
    contradicted = [
        before[0].model_copy(update={"image": image, "label": label, "suggested": suggested})
        for image, label, suggested in ((tulip, "tulip", "rose"), (rose, "rose", "tulip"))
    ]
    labels = audit.labels.model_copy(update={"suspects": (*contradicted, *before)})
    changed = audit.model_copy(update={"labels": labels})
    write_json(copied / "audit.json", changed)
    suspects = Review(copied).suspects
    assert [suspect.images for suspect in suspects if {tulip, rose} & suspect.images] == [{tulip, rose}]
    assert len(suspects) == 20
    assert "2 of these 16 labels are of copies under several labels, too" in " ".join(describe_audit(changed))
    page = write_audit_page(changed, copied).read_text()
    assert f"the same photo as {rose}, labelled rose" in page
    # a third class is a question of its own
    third = contradicted[1].model_copy(update={"suggested": "daisy"})
    labels = audit.labels.model_copy(update={"suspects": (third,)})
    write_json(copied / "audit.json", audit.model_copy(update={"labels": labels}))
    assert Review(copied).suspects[0].images == {rose}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"path": "train/daisy/0.jpg"', '"path": "../../secret.jpg"', r"leads out of the images' folder"),
        ('"path": "train/daisy/0.jpg"', '"path": "C:/secret.jpg"', r"leads out of the images' folder"),
        ('"suggested": "dandelion"', '"suggested": "oak"', r"'oak' is none of its classes"),
        ('"schema": 1', '"schema": 2', "schema: must be 1"),
        ('"schema": 1', "schema", "Invalid JSON"),
    ],
)
def test_a_malformed_audit_is_a_clear_error(copied: Path, old: str, new: str, problem: str) -> None:
    file = copied / "audit.json"
    text = json.dumps(json.loads(file.read_text()))
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(AuditFileError, match=problem):
        Review(copied)


def test_mistakes_on_the_command_line(tmp_path: Path, copied: Path, server: Server) -> None:
    missing = command("review", tmp_path / "nowhere")
    assert missing.returncode == 2 and "nowhere cannot be read: No such file" in missing.stderr
    port = server.address.rsplit(":", 1)[1].partition("/")[0]
    taken = command("review", copied, "--port", port)
    assert taken.returncode == 2
    no_model = command("review", copied, "--model", tmp_path)
    assert no_model.returncode == 2 and "neither a model folder nor a run folder" in no_model.stderr
    assert f"port {port} cannot be used (Address already in use): leave --port out" in taken.stderr


def test_a_missing_package_is_said_with_what_installs_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlkit.serving.review.find_spec", lambda _name: None)
    done = command("review", copied)
    assert done.returncode == 2
    assert done.stderr == "Error: fastapi, uvicorn missing: pip install 'tlkit[review]'\n"
