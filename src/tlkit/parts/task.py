"""What a classifier answers: one label per image, or any number of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

#: scikit-learn's words: "multiclass": every image has one label; "multilabel": any number of them, none
#: included.
Task = Literal["multiclass", "multilabel"]
#: Between the labels of an image, in the CSV files that tlkit writes.
SEPARATOR = "|"


def join_labels(labels: Iterable[str]) -> str:
    """Returns the labels of an image as one cell of a CSV file; "" for none."""
    return SEPARATOR.join(labels)


def split_labels(cell: str) -> tuple[str, ...]:
    """Returns the labels that `join_labels` was given."""
    return tuple(cell.split(SEPARATOR)) if cell else ()
