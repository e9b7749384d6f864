"""Says in sentences what an audit has found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tlkit.analysis.audit_file import Audit, CopyGroup
from tlkit.utils.formatting import format_p_value, plural, shortlist

#: How many names a sentence lists.
NAMES_SHOWN = 3


def describe_audit(audit: Audit) -> list[str]:
    """Describes what was found, a sentence or two for each kind of finding, also where there is none."""
    return [
        _describe_images(audit),
        *_describe_copies(audit),
        *_describe_labels(audit),
        *_describe_unlike(audit),
        *_describe_classes(audit),
    ]


def _describe_images(audit: Audit) -> str:
    count = sum(audit.classes.values())
    text = f"{plural(count, 'image')} of {len(audit.classes):,} classes"
    if audit.accuracy is not None:
        text += f"; out of fold, a probe on {audit.backbone} has balanced accuracy {audit.accuracy:.3f}"
    text += "."
    if audit.rejected:
        names = shortlist([f"{item.image} ({item.reason})" for item in audit.rejected], NAMES_SHOWN)
        text += f" {plural(len(audit.rejected), 'file')} cannot be read: {names}."
    return text


def _describe_copies(audit: Audit) -> Iterator[str]:
    if not audit.groups:
        yield "No image is a copy of another."
    else:
        images = sum(len(group.images) for group in audit.groups)
        across_splits = sum(group.across_splits for group in audit.groups)
        across_labels = sum(group.across_labels for group in audit.groups)
        yield (
            f"{plural(images, 'image')} are copies of one another, in {plural(len(audit.groups), 'group')}: "
            f"{across_splits} across splits, {across_labels} under several labels."
        )
        yield from _name_copies("Copies under several labels", (g for g in audit.groups if g.across_labels))
        yield from _name_copies("Copies across splits", (g for g in audit.groups if g.across_splits))
    if audit.series:
        yield (
            f"{plural(len(audit.series), 'pair')} of similar images in different splits may show one object: "
            + shortlist([" and ".join(pair.images) for pair in audit.series], NAMES_SHOWN)
            + "."
        )


def _name_copies(head: str, groups: Iterable[CopyGroup]) -> Iterator[str]:
    names = [shortlist(group.images, NAMES_SHOWN, " and ") for group in groups]
    if names:
        yield f"{head}: {shortlist(names, NAMES_SHOWN, '; ')}."


def _describe_labels(audit: Audit) -> Iterator[str]:
    labels = audit.labels
    if not labels.suspects:
        yield f"No label is suspect ({labels.method})."
        return
    trust = ""
    if labels.precision is not None and labels.recall is not None:
        trust = (
            f": an estimated {100 * labels.precision:.0f}% of these are wrong, and they are "
            f"{100 * labels.recall:.0f}% of all wrong labels"
        )
    yield f"{plural(len(labels.suspects), 'label')} may be wrong{trust} ({labels.method})."
    if copied := sum(bool(audit.copies_as_suggested(suspect)) for suspect in labels.suspects):
        yield (
            f"{copied} of these {plural(len(labels.suspects), 'label')} {'is' if copied == 1 else 'are'} of "
            "copies under several labels, too: tlkit review asks about each such pair once."
        )


def _describe_unlike(audit: Audit) -> Iterator[str]:
    if audit.unlike:
        names = shortlist([item.image for item in audit.unlike], NAMES_SHOWN)
        yield f"{plural(len(audit.unlike), 'image')} unlike all others: {names}."


def _describe_classes(audit: Audit) -> Iterator[str]:
    if audit.small_classes:
        yield f"Classes with few images: {shortlist(audit.small_classes)}."
    if audit.confusions:
        pairs = [
            f"{' and '.join(item.classes)} ({item.confused:,} of {item.images:,})"
            for item in audit.confusions
        ]
        yield f"Classes that are confused: {shortlist(pairs, NAMES_SHOWN)}."
    for shortcut in audit.shortcuts:
        yield (
            f"The classes can be told apart by {shortcut.property} alone: balanced accuracy "
            f"{shortcut.accuracy:.3f}, where chance is {shortcut.chance:.3f} ({format_p_value(shortcut.p)}). "
            "A classifier may learn that instead of what the images show."
        )
