"""JSON files: written whole, read strictly, with errors that name the file and the key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, FiniteFloat, ValidationError

from tlkit.errors import DataError, RunFolderError
from tlkit.utils.json_files import JsonModel, parse_json, read_json, read_text, write_json


@dataclass(frozen=True, slots=True)
class Epoch:
    number: int
    loss: FiniteFloat


class Part(JsonModel):
    name: str
    count: int


class Document(JsonModel):
    schema_version: Literal[1] = Field(1, alias="schema")
    title: str
    parts: tuple[Part, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    score: float | None = None


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    document = Document(
        title="Katzen äöü 猫", parts=(Part(name="a", count=1),), epochs=(Epoch(1, 0.5),), score=0.25
    )
    path = tmp_path / "new" / "document.json"
    write_json(path, document)
    assert read_json(path, Document, RunFolderError) == document
    assert json.loads(path.read_text(encoding="utf-8"))["schema"] == 1, "keys are written under their alias"
    assert [file.name for file in path.parent.iterdir()] == ["document.json"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_not_finite_are_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    for text, key in (
        (f'{{"title": "a", "score": {number}}}', "score"),
        (f'{{"title": "a", "epochs": [{{"number": 1, "loss": {number}}}]}}', "epochs.0.loss"),
    ):
        path.write_text(text)
        with pytest.raises(RunFolderError, match=rf"document\.json cannot be read: {key}: must be a finite"):
            read_json(path, Document, RunFolderError)


def test_keys_that_are_none_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    write_json(path, Document(title="a"), exclude_none=True)
    assert "score" not in json.loads(path.read_text())
    write_json(path, Document(title="a"))
    assert json.loads(path.read_text())["score"] is None


def test_a_document_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Document(title="a").title = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "must be an object"),
        ("null", "must be an object"),
        ("{}", "title: Field required"),
        ('{"title": 3}', "title: must be a valid string"),
        ('{"title": "a", "titel": "b"}', "titel: Extra inputs are not permitted"),
        ('{"title": "a", "schema": 2}', "schema: must be 1"),
        ('{"title": "a", "score": "0.5"}', "score: must be a valid number"),
        ('{"title": "a", "score": true}', "score: must be a valid number"),
        ('{"title": "a", "parts": [{"name": "a", "count": "1"}]}', "parts.0.count: must be a valid integer"),
        ('{"title": "a", "parts": [{"name": "a"}]}', "parts.0.count: Field required"),
        ('{"title": "a", "epochs": [{"number": 1}]}', "epochs.0.loss: Field required"),
    ],
)
def test_an_error_names_the_file_and_the_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_json(path, Document, DataError)
    assert str(caught.value).startswith(f"{path} cannot be read: {message}")
    assert "Input should be" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_an_error_lists_the_first_wrong_keys() -> None:
    text = '{"parts": [{}, {}], "epochs": [1]}'
    with pytest.raises(RunFolderError) as caught:
        parse_json(text, Document, RunFolderError, "log.jsonl, line 3")
    message = str(caught.value)
    assert message.startswith("log.jsonl, line 3 cannot be read: title: Field required; parts.0.name: ")
    assert message.endswith(" and 3 more")
    assert "\n" not in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    with pytest.raises(RunFolderError, match=r"document\.json cannot be read: .*No such file"):
        read_json(path, Document, RunFolderError)
    path.mkdir()
    with pytest.raises(RunFolderError, match=r"document\.json cannot be read"):
        read_text(path, RunFolderError)
    latin = tmp_path / "latin.json"
    latin.write_bytes('{"title": "ä"}'.encode("latin-1"))
    with pytest.raises(RunFolderError, match=r"latin\.json cannot be read: .*utf-8"):
        read_json(latin, Document, RunFolderError)


def test_a_value_that_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "document.json"
    write_json(path, Document(title="old"))

    def fail(*_: object, **__: object) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="no space"):
        write_json(path, Document(title="new"))
    assert [file.name for file in tmp_path.iterdir()] == ["document.json"]
    assert read_json(path, Document, RunFolderError).title == "old"
