"""Which column of a table holds the images, and which the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel, Features, Image, Value

from tlkit import DataError, close_matches

_BYTES = ("binary", "large_binary")


def image_column(where: str, features: Features, name: str | None) -> str:
    """The column with the images: the named one, or the only one there is.

    Raises:
        DataError: there is none, or there are several to choose from.
    """
    if name is not None:
        _must_be_there(where, features, name, "image_column")
        if not _has_images(features[name]):
            raise DataError(f"{where}: column {name!r} holds no images but {_kind(features[name])}")
        return name
    declared = [column for column, feature in features.items() if isinstance(feature, Image)]
    found = declared or [column for column, feature in features.items() if _has_images(feature)]
    if not found:
        raise DataError(f"{where} has no image column; it has {_listed(features)}")
    return _only(where, found, "image")


def label_column(where: str, features: Features, name: str | None, images: str) -> str:
    """The column with the classes: the named one, the only class column, or the only one of texts or numbers.

    Raises:
        DataError: there is none, or there are several to choose from.
    """
    if name is not None:
        _must_be_there(where, features, name, "label_column")
        if not _has_classes(features[name]):
            raise DataError(f"{where}: column {name!r} holds no classes but {_kind(features[name])}")
        return name
    others = {column: feature for column, feature in features.items() if column != images}
    declared = [column for column, feature in others.items() if isinstance(feature, ClassLabel)]
    found = declared or [column for column, feature in others.items() if _has_classes(feature)]
    if not found:
        raise DataError(f"{where} has no label column besides the images; it has {_listed(features)}")
    return _only(where, found, "label")


def _only(where: str, found: list[str], kind: str) -> str:
    if len(found) > 1:
        raise DataError(
            f"{where} has several columns that could be the {kind} column: {', '.join(found)}; "
            f"name one with the option '{kind}_column'"
        )
    return found[0]


def _must_be_there(where: str, features: Features, name: str, option: str) -> None:
    if name not in features:
        raise DataError(
            f"{where} has no column {name!r}{close_matches(name, features)}, which '{option}' names; "
            f"it has {_listed(features)}"
        )


def _has_images(feature: Any) -> bool:
    """Images, or what is stored for them where nobody declared it: bytes with a path, or bytes alone."""
    if isinstance(feature, Mapping):
        content = feature.get("bytes")
        return isinstance(content, Value) and content.dtype in _BYTES and set(feature) == {"bytes", "path"}
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in _BYTES)


def _has_classes(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    kinds = ("string", "large_string", "bool", "int", "uint")
    return isinstance(feature, Value) and feature.dtype.startswith(kinds)


def _kind(feature: Any) -> str:
    return str(feature.dtype) if isinstance(feature, Value) else type(feature).__name__


def _listed(features: Features) -> str:
    return ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
