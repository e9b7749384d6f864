"""The contract of a source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

from tlkit.data.images import decode
from tlkit.parts.source import SPLITS, Sample, Source
from tlkit.testing.runner import CheckFailed, NotApplicable, PartUnderTest
from tlkit.utils.formatting import shortlist

#: How many of the images are decoded.
IMAGES_DECODED = 3
RELATIVE_ID = "use the path relative to the root: path.relative_to(root).as_posix()"


@dataclass
class Subject:
    """What the checks of a source are called with.

    Attributes:
        part: the source's factory and options.
        root: its folder, or None.
        source: the source.
    """

    part: PartUnderTest
    root: Path | None
    source: Source

    def make_again(self) -> Source:
        """Makes the source a second time."""
        source: Source = self.part.build(self.root)
        return source

    def make_in_subprocess(self) -> Source | None:
        """Makes the source in another process, where sets have another order; None if it is not registered.

        Raises:
            CheckFailed: it cannot be made there.
        """
        part = self.part
        if part.name not in part.registry.names("source"):
            return None
        if part.registry.find("source", part.name).factory is not part.factory:
            return None
        root = str(self.root) if self.root else None
        arguments = json.dumps([part.name, dict(part.options), root], default=str)
        environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        # by its path, for -m imports this package first; with -P, its folder is not searched for modules
        script = Path(__file__).with_name("source_subprocess.py")
        process = subprocess.run(
            [sys.executable, "-P", str(script), arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise CheckFailed(
                expected="the same source in another process",
                got=process.stderr.strip().splitlines()[-1],
                fix="let it depend on its root and its options only",
            )
        output = json.loads(process.stdout)
        samples = [
            Sample(name, Path(path), label, split, labels=None if labels is None else tuple(labels))
            for name, path, label, split, labels in output["samples"]
        ]
        unlabelled = [Sample(name, Path(path)) for name, path in output["unlabelled"]]
        return Source(tuple(output["classes"]), samples, unlabelled)

    def all_samples(self) -> list[Sample]:
        """Returns the labelled and the unlabelled samples."""
        return [*self.source.samples, *self.source.unlabelled]


def setup(part: PartUnderTest, root: Path | None = None) -> Subject:
    """Makes the source of the images in `root`.

    Raises:
        TlkitError: the source refuses that folder.
        TypeError: the factory does not return a source.
    """
    source = part.build(root)
    if not isinstance(source, Source):
        raise TypeError(f"the factory must return a tlkit.Source; it returned {type(source).__name__}")
    return Subject(part, root, source)


def classes_are_named(subject: Subject) -> str:
    """There are at least two classes, and their names are different."""
    classes = subject.source.classes
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    wrong = [name for name in classes if not isinstance(name, str) or not name]
    if not isinstance(classes, tuple) or len(classes) < 2 or repeated or wrong:
        raise CheckFailed(
            expected="a tuple of at least two class names, all different",
            got=f"{classes!r}",
            fix="give Source(classes=(…), …) the names in the order of the labels",
        )
    return shortlist(classes)


def there_are_images(subject: Subject) -> str:
    """The source has labelled images, or says where they can be downloaded."""
    source = subject.source
    if not source.samples and not source.downloads:
        raise CheckFailed(
            expected="labelled images, or downloads to fetch them from",
            got="neither",
            fix="raise tlkit.DataError with what to do, or give Source(downloads=(…,))",
        )
    if not source.samples:
        raise NotApplicable(
            "its images are not downloaded yet, and the other checks ran without images; run tlkit fetch"
        )
    return f"{len(source.samples)} labelled, {len(source.unlabelled)} unlabelled"


def ids_are_unique(subject: Subject) -> None:
    """All images, labelled and unlabelled, have different ids, which do not depend on the machine."""
    ids = [sample.id for sample in subject.all_samples()]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    wrong = [repr(name) for name in ids if not isinstance(name, str) or not name]
    if repeated or wrong:
        raise CheckFailed(
            expected="a unique id for every image, which results name it by",
            got=f"{shortlist(repeated)} more than once" if repeated else f"the id {shortlist(wrong)}",
            fix=RELATIVE_ID,
        )
    absolute = [name for name in ids if PurePath(name).is_absolute()]
    if absolute:
        raise CheckFailed(
            expected="ids that are the same on every machine",
            got=f"absolute paths: {shortlist(absolute)}",
            fix=RELATIVE_ID,
        )


def repeated_calls_agree(subject: Subject) -> None:
    """Made again, here and in another process, the source has equal classes and samples in the same order."""
    _must_equal(subject.source, subject.make_again())
    other = subject.make_in_subprocess()
    if other is not None:
        _must_equal(subject.source, other)


def _must_equal(source: Source, other: Source) -> None:
    if other.classes != source.classes:
        raise CheckFailed(
            expected=f"the classes {source.classes} on a second call",
            got=f"{other.classes}",
            fix="sort them: sets and folder listings have no fixed order",
        )
    for first, second in ((source.samples, other.samples), (source.unlabelled, other.unlabelled)):
        different = [sample.id for sample, again in zip(first, second, strict=False) if sample != again]
        if different or len(first) != len(second):
            raise CheckFailed(
                expected=f"the same {len(first)} images in the same order on a second call",
                got=f"{len(second)} images, {len(different)} of them different: {shortlist(different)}",
                fix="sort the files, and let ids, labels and splits depend on the files only",
            )


def labels_are_class_indices(subject: Subject) -> None:
    """Every label is an index into the classes, unlabelled images have none, and every class has images.

    All labelled images have one label, or all have any number of them.
    """
    source, classes = subject.source, subject.source.classes
    fix = "give Sample(label=classes.index(name)), and None for images in Source.unlabelled"
    several = any(sample.labels is not None for sample in source.samples)
    if several:
        fix = "give every sample labels=(classes.index(name), …), () for none, and no label"
    for sample in source.samples:
        label = (sample.labels, sample.label) if several else sample.label
        indices = sample.labels or () if several else (sample.label,)
        one_kind = (sample.label is None and sample.labels is not None) if several else sample.labels is None
        if not one_kind or any(type(index) is not int or not 0 <= index < len(classes) for index in indices):
            raise CheckFailed(
                expected=f"labels from 0 to {len(classes) - 1}, indices into {classes}",
                got=f"{label!r} for {sample.id!r}",
                fix=fix,
            )
    labelled = [sample.id for sample in source.unlabelled if sample.is_labelled]
    if labelled:
        raise CheckFailed(
            expected="no labels in Source.unlabelled", got=f"labels for {shortlist(labelled)}", fix=fix
        )
    used = {label for sample in source.samples for label in sample.class_indices}
    empty = [name for label, name in enumerate(classes) if label not in used]
    if empty and used:
        raise CheckFailed(
            expected="images of every class",
            got=f"none of {shortlist(empty)}",
            fix="leave out classes without images, or raise tlkit.DataError",
        )


def splits_are_disjoint(subject: Subject) -> str:
    """No file is in two splits, and either all labelled images name their split or none.

    A source that names splits must have training and test images; validation images can be drawn.
    """
    source = subject.source
    split_of: dict[Path, str | None] = {}
    for sample in source.samples:
        if sample.split is not None and sample.split not in SPLITS:
            raise CheckFailed(
                expected=f"one of the splits {', '.join(SPLITS)}, or None",
                got=f"{sample.split!r} for {sample.id!r}",
                fix="give Sample(split=…) one of these names",
            )
        first = split_of.setdefault(sample.path, sample.split)
        if first != sample.split:
            raise CheckFailed(
                expected="every file in one split",
                got=f"{sample.path.name!r} in {first} and in {sample.split}",
                fix="list every file once: a training image must not be a test image",
            )
    counts = Counter(str(sample.split) for sample in source.samples if sample.split)
    without = [sample.id for sample in source.samples if sample.split is None]
    missing = [split for split in ("train", "test") if split not in counts]
    if counts and (without or missing):
        raise CheckFailed(
            expected="a split for all labelled images, train and test among them, or for none",
            got=f"no split for {shortlist(without)}" if without else f"no {' and no '.join(missing)} images",
            fix="leave Sample(split=…) out for all of them, so that tlkit draws the splits",
        )
    return ", ".join(f"{count} {split}" for split, count in counts.items()) or "tlkit draws them"


def images_can_be_read(subject: Subject) -> str:
    """Every file exists, or `Source.make` returns the same bytes twice; some images are decoded."""
    source, samples = subject.source, subject.all_samples()
    if not samples:
        raise NotApplicable("its images are not downloaded yet")
    if source.make is None:
        missing = [sample.id for sample in samples if not sample.path.is_file()]
        if missing:
            raise CheckFailed(
                expected="a file for every sample",
                got=f"none for {shortlist(missing)}",
                fix="give absolute paths below the root, or Source(make=…) if the source generates its "
                "images",
            )
    for sample in samples[:: max(1, len(samples) // IMAGES_DECODED)][:IMAGES_DECODED]:
        decode(_content(source, sample))
    return "generated when they are needed" if source.make is not None else f"{len(samples)} files"


def _content(source: Source, sample: Sample) -> bytes:
    if source.make is None:
        return sample.path.read_bytes()
    content: object = source.make(sample)
    if not isinstance(content, bytes):
        raise CheckFailed(
            expected=f"bytes from make for {sample.id!r}",
            got=type(content).__name__,
            fix="return the content of an image file",
        )
    if content != source.make(sample):
        raise CheckFailed(
            expected=f"the same bytes from make for {sample.id!r} on every call",
            got="different bytes on the second call",
            fix="draw from a generator that is seeded by the sample, not from a global one",
        )
    return content


CHECKS = (
    classes_are_named,
    there_are_images,
    ids_are_unique,
    repeated_calls_agree,
    labels_are_class_indices,
    splits_are_disjoint,
    images_can_be_read,
)
