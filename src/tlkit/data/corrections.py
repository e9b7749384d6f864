"""Applies corrections to the images of a source: changes labels and leaves out images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from tlkit.data.corrections_file import Correction, Corrections
from tlkit.data.images import Image
from tlkit.errors import AuditFileError, close_matches
from tlkit.utils.formatting import bulleted, plural
from tlkit.utils.json_files import JsonModel

#: How many unknown images an error suggests others for: among many images that takes long.
HINTS = 3


class LabelChange(JsonModel):
    """A label that was corrected.

    Attributes:
        image: the image's id.
        given: the source's label; ``from`` in JSON.
        corrected: the label in its place; ``to`` in JSON.
    """

    image: str
    given: str = Field(alias="from")
    corrected: str = Field(alias="to")


@dataclass(frozen=True)
class CorrectedImages:
    """Images after corrections.

    Attributes:
        images: the images that remain, with corrected labels.
        rejected: (id, reason) of those that cannot be read and are not left out anyway.
        changes: the labels that were changed.
        left_out: (id, reason) of the images that the corrections leave out.
        summary: a sentence about all this; empty without corrections.
    """

    images: tuple[Image, ...]
    rejected: tuple[tuple[str, str], ...]
    changes: tuple[LabelChange, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    summary: str = ""


def apply_corrections(
    corrections: Corrections | None,
    images: Sequence[Image],
    rejected: Sequence[tuple[str, str]],
    classes: Sequence[str],
) -> CorrectedImages:
    """Changes labels and leaves out images.

    Args:
        corrections: the decisions, or None.
        images: all images that can be read, with and without a label.
        rejected: (id, reason) of those that cannot be read.
        classes: class names; a label is an index into them.

    Raises:
        AuditFileError: an image or class does not exist, or an image is not the one that was decided about.
    """
    if corrections is None:
        return CorrectedImages(tuple(images), tuple(rejected))
    decided = corrections.of_images()
    _check(corrections, {image.sample.id: image for image in images}, dict(rejected), classes)
    name = corrections.path.name
    left_out = tuple((image, _reason(row, name)) for image, (_, row) in decided.items() if row.leaves_out)
    out = dict(left_out)
    remaining, changes = [], []
    for image in images:
        sample = image.sample
        if sample.id in out:
            continue
        _, row = decided.get(sample.id, (0, None))
        if row is not None and sample.label is not None and row.resulting_label != classes[sample.label]:
            label = row.resulting_label
            changes.append(LabelChange(image=sample.id, given=classes[sample.label], corrected=label))
            image = replace(image, sample=replace(sample, label=classes.index(label)))
        remaining.append(image)
    summary = f"{name}: {plural(len(changes), 'label')} changed, {plural(len(out), 'image')} left out"
    if corrections.cut_short:
        summary += "; its last line is not complete and was ignored"
    unreadable = tuple(item for item in rejected if item[0] not in out)
    return CorrectedImages(tuple(remaining), unreadable, tuple(changes), left_out, summary)


def _check(
    corrections: Corrections, images: Mapping[str, Image], rejected: Mapping[str, str], classes: Sequence[str]
) -> None:
    """Raises unless all decisions are about these images."""
    # what the source said is the label in the first decision about an image
    first = {row.image: row.label for _, row in reversed(corrections.rows)}
    decided = corrections.of_images()
    problems, hints = [], HINTS
    for name, (line, row) in decided.items():
        if name in rejected:  # it is left out, or reported as unreadable
            continue
        if name not in images:
            problem = f"there is no image {name!r}{close_matches(name, images) if hints > 0 else ''}"
            hints -= 1
            problems.append(f"line {line}: {problem}")
            continue
        problems += [
            f"line {line}: {problem}" for problem in _problems(row, images[name], first[name], classes)
        ]
        if row.other and row.other not in images and row.other not in rejected:
            problems.append(f"line {line}: there is no image {row.other!r}")
        if row.decision == "same-photo" and _is_circle(row, decided):
            problems.append(f"line {line}: {name!r} and {row.other!r} are both left out for the other")
    if problems:
        raise AuditFileError(
            bulleted(f"{corrections.path} does not fit the images", problems)
            + "\nCorrect or remove these lines, or review the images again"
        )


def _problems(row: Correction, image: Image, reviewed_label: str, classes: Sequence[str]) -> Iterator[str]:
    if image.sample.label is None:
        yield f"{row.image!r} has no label to correct"
    elif row.sha256 != image.sha256:
        yield f"{row.image!r} has changed since it was reviewed: it is another file"
    elif row.resulting_label not in classes:
        yield f"there is no class {row.resulting_label!r}{close_matches(row.resulting_label, classes)}"
    elif reviewed_label != classes[image.sample.label]:
        label = classes[image.sample.label]
        yield f"{row.image!r} is labelled {label!r}, and was labelled {reviewed_label!r} when it was reviewed"


def _is_circle(row: Correction, decided: Mapping[str, tuple[int, Correction]]) -> bool:
    """Returns whether a chain of "same-photo" decisions ends at the image that it begins with."""
    start, visited = row.image, {row.image}
    while row.decision == "same-photo":
        if row.other in visited:
            return row.other == start
        visited.add(row.other)
        if row.other not in decided:
            return False
        _, row = decided[row.other]
    return False


def _reason(row: Correction, file: str) -> str:
    if row.decision == "same-photo":
        return f"removed by {file}: the same photo as {row.other}"
    return f"removed by {file}"
