"""Finds the columns of a table that hold the images and the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel, Features, Image, Value

from tlkit import DataError, close_matches

_BYTES = ("binary", "large_binary")


def image_column(where: str, features: Features, name: str | None) -> str:
    """Returns the column with the images: the named one, or the only one.

    Args:
        where: how messages call the table.
        features: the table's columns.
        name: the column named in the recipe, or None.

    Raises:
        DataError: there is no such column, or there are several.
    """
    if name is not None:
        _must_exist(where, features, name, "image_column")
        if not _has_images(features[name]):
            raise DataError(f"{where}: column {name!r} does not hold images but {_type(features[name])}")
        return name
    declared = [column for column, feature in features.items() if isinstance(feature, Image)]
    columns = declared or [column for column, feature in features.items() if _has_images(feature)]
    if not columns:
        raise DataError(f"{where} has no image column; it has {_describe(features)}")
    return _only(where, columns, "image")


def label_column(where: str, features: Features, name: str | None, images: str) -> str:
    """Returns the column with the classes: the named one, or the only one.

    A column of type ClassLabel is preferred over strings and integers.

    Args:
        where: how messages call the table.
        features: the table's columns.
        name: the column named in the recipe, or None.
        images: the column with the images.

    Raises:
        DataError: there is no such column, or there are several.
    """
    if name is not None:
        _must_exist(where, features, name, "label_column")
        if not _has_classes(features[name]):
            raise DataError(f"{where}: column {name!r} does not hold classes but {_type(features[name])}")
        return name
    others = {column: feature for column, feature in features.items() if column != images}
    declared = [column for column, feature in others.items() if isinstance(feature, ClassLabel)]
    columns = declared or [column for column, feature in others.items() if _has_classes(feature)]
    if not columns:
        raise DataError(f"{where} has no label column besides the images; it has {_describe(features)}")
    return _only(where, columns, "label")


def _only(where: str, columns: list[str], kind: str) -> str:
    if len(columns) > 1:
        raise DataError(
            f"{where} has several columns that could be the {kind} column: {', '.join(columns)}; "
            f"name one with the option '{kind}_column'"
        )
    return columns[0]


def _must_exist(where: str, features: Features, name: str, option: str) -> None:
    if name not in features:
        raise DataError(
            f"{where} has no column {name!r}{close_matches(name, features)}, which '{option}' names; "
            f"it has {_describe(features)}"
        )


def _has_images(feature: Any) -> bool:
    """Returns whether a column holds images, declared as such or not: bytes with a path, or bytes alone."""
    if isinstance(feature, Mapping):
        content = feature.get("bytes")
        return isinstance(content, Value) and content.dtype in _BYTES and set(feature) == {"bytes", "path"}
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in _BYTES)


def _has_classes(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    kinds = ("string", "large_string", "bool", "int", "uint")
    return isinstance(feature, Value) and feature.dtype.startswith(kinds)


def _type(feature: Any) -> str:
    return str(feature.dtype) if isinstance(feature, Value) else type(feature).__name__


def _describe(features: Features) -> str:
    return ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())
