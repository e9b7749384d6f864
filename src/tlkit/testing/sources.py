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
from tlkit.testing.runner import CheckFailed, NotApplicable, PartUnderTest, shortlist

#: How many of its images a source that makes them is asked for.
MADE = 3


@dataclass
class Subject:
    """A source under test.

    Attributes:
        bench: how it was made.
        root: its folder, or None.
        source: it.
    """

    bench: PartUnderTest
    root: Path | None
    source: Source

    def again(self) -> Source:
        """The source, made anew."""
        source: Source = self.bench.part(self.root)
        return source

    def elsewhere(self) -> Source | None:
        """What another process makes of it, where sets have another order; None if nobody registered it."""
        bench = self.bench
        if bench.name not in bench.registry.names("source"):
            return None
        if bench.registry.find("source", bench.name).factory is not bench.factory:
            return None
        root = str(self.root) if self.root else None
        # nothing is read from this process but plain values, and nothing is run but tlkit's own loading
        given = json.dumps([bench.name, dict(bench.options), root], default=str)
        environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-m", "tlkit.testing.elsewhere", given],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CheckFailed(
                expected="the source in another process, too",
                came=done.stderr.strip().splitlines()[-1],
                mend="let it depend on its root and its options alone",
            )
        made = json.loads(done.stdout)
        samples = [Sample(each, Path(path), label, split) for each, path, label, split in made["samples"]]
        unlabelled = [Sample(each, Path(path)) for each, path in made["unlabelled"]]
        return Source(tuple(made["classes"]), samples, unlabelled)

    def all(self) -> list[Sample]:
        """Labelled and unlabelled samples."""
        return [*self.source.samples, *self.source.unlabelled]


def setup(bench: PartUnderTest, root: Path | None = None) -> Subject:
    """Makes the source from that folder.

    Raises:
        TlkitError: it says itself that it cannot be had from there.
    """
    source = bench.part(root)
    if not isinstance(source, Source):
        raise TypeError(f"the factory must return a tlkit.Source, not {type(source).__name__}")
    return Subject(bench, root, source)


def classes_are_named(subject: Subject) -> str:
    """There are at least two classes, each with a name of its own."""
    classes = subject.source.classes
    twice = [str(name) for name, count in Counter(classes).items() if count > 1]
    wrong = [repr(name) for name in classes if not isinstance(name, str) or not name]
    if not isinstance(classes, tuple) or len(classes) < 2 or twice or wrong:
        raise CheckFailed(
            expected="a tuple of at least two class names, all different",
            came=f"{classes!r}",
            mend="give Source(classes=(…), …) the names in the order of the labels",
        )
    return shortlist(classes)


def there_are_images(subject: Subject) -> str:
    """It has labelled images, or says where they are to be fetched."""
    source = subject.source
    if not source.samples and not source.downloads:
        raise CheckFailed(
            expected="labelled images, or downloads that they can be fetched from",
            came="neither",
            mend="raise tlkit's DataError that says what to do, or give Source(downloads=(…,))",
        )
    if not source.samples:
        raise NotApplicable("it has no images here yet; tlkit fetch gets them: the other checks saw none")
    return f"{len(source.samples)} labelled, {len(source.unlabelled)} without a label"


def ids_are_unique(subject: Subject) -> None:
    """No two images, labelled or not, have the same id."""
    twice = [name for name, count in Counter(sample.id for sample in subject.all()).items() if count > 1]
    wrong = [repr(sample.id) for sample in subject.all() if not isinstance(sample.id, str) or not sample.id]
    absolute = [sample.id for sample in subject.all() if PurePath(sample.id).is_absolute()]
    if absolute and not (twice or wrong):
        raise CheckFailed(
            expected="ids that are the same on every machine",
            came=f"paths of this one: {shortlist(absolute)}",
            mend="use the path below the root: path.relative_to(root).as_posix()",
        )
    if twice or wrong:
        raise CheckFailed(
            expected="an id of its own for every image: results name it by that",
            came=f"{shortlist(twice)} more than once" if twice else f"{shortlist(wrong)} for an id",
            mend="use the path below the root: path.relative_to(root).as_posix()",
        )


def a_second_call_gives_the_same(subject: Subject) -> None:
    """Made again, here and in another process, it has the same classes, ids, labels and splits in order."""
    _must_be_the_same(subject, subject.again())
    elsewhere = subject.elsewhere()
    if elsewhere is not None:
        _must_be_the_same(subject, elsewhere)


def _must_be_the_same(subject: Subject, other: Source) -> None:
    if other.classes != subject.source.classes:
        raise CheckFailed(
            expected=f"the classes {subject.source.classes} again",
            came=f"{other.classes}",
            mend="sort them: sets and folders have no order",
        )
    pairs = [(subject.source.samples, other.samples), (subject.source.unlabelled, other.unlabelled)]
    for first, second in pairs:
        changed = [one.id for one, two in zip(first, second, strict=False) if one != two]
        if changed or len(first) != len(second):
            raise CheckFailed(
                expected=f"the same {len(first)} images in the same order on a second call",
                came=f"{len(second)}, of which {len(changed)} differ: {shortlist(changed)}",
                mend="sort the files, and give each an id, a label and a split that depend on nothing else",
            )


def labels_are_within_the_classes(subject: Subject) -> None:
    """Every label is an index into the classes; unlabelled images have none; no class is empty."""
    classes = subject.source.classes
    mend = "give Sample(label=classes.index(name)), and None for what is in Source.unlabelled"
    for sample in subject.source.samples:
        label = sample.label
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(classes):
            raise CheckFailed(
                expected=f"labels from 0 to {len(classes) - 1}, indices into {classes}",
                came=f"{label!r} for {sample.id!r}",
                mend=mend,
            )
    labelled = [sample.id for sample in subject.source.unlabelled if sample.label is not None]
    if labelled:
        raise CheckFailed(
            expected="no label in Source.unlabelled", came=f"one for {shortlist(labelled)}", mend=mend
        )
    used = {sample.label for sample in subject.source.samples}
    empty = [name for label, name in enumerate(classes) if label not in used]
    if empty and used:
        raise CheckFailed(
            expected="images of every class",
            came=f"none of {shortlist(empty)}",
            mend="leave out classes without images, or raise tlkit's DataError",
        )


def splits_are_disjoint(subject: Subject) -> str:
    """No file is in two splits; either every labelled image names its split or none does.

    A source that knows splits knows what to train and to test on; validation images can be drawn.
    """
    places: dict[Path, str | None] = {}
    for sample in subject.source.samples:
        if sample.split is not None and sample.split not in SPLITS:
            raise CheckFailed(
                expected=f"a split of {', '.join(SPLITS)}, or None",
                came=f"{sample.split!r} for {sample.id!r}",
                mend="use these words in Sample(split=…)",
            )
        before = places.setdefault(sample.path, sample.split)
        if before != sample.split:
            raise CheckFailed(
                expected="each file in one split",
                came=f"{sample.path.name!r} in {before} and in {sample.split}",
                mend="list a file once: what was trained on must not be tested on",
            )
    counts = Counter(str(sample.split) for sample in subject.source.samples if sample.split)
    unplaced = [sample.id for sample in subject.source.samples if sample.split is None]
    lacking = [split for split in ("train", "test") if split not in counts]
    if counts and (unplaced or lacking):
        raise CheckFailed(
            expected="a split for every labelled image, train and test among them, or for none",
            came=f"none for {shortlist(unplaced)}" if unplaced else f"no {' and no '.join(lacking)} images",
            mend="leave Sample(split=…) out for all of them, and tlkit draws the splits",
        )
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "the toolkit draws them"


def images_can_be_read(subject: Subject) -> str:
    """Every file is there, or `make` gives its content, twice the same; some are decoded."""
    source, samples = subject.source, subject.all()
    if not samples:
        raise NotApplicable("it has no images here yet")
    if source.make is None:
        gone = [sample.id for sample in samples if not sample.path.is_file()]
        if gone:
            raise CheckFailed(
                expected="a file for every sample",
                came=f"none for {shortlist(gone)}",
                mend="give absolute paths below the root, or Source(make=…) if the source makes its images",
            )
    for sample in samples[:: max(1, len(samples) // MADE)][:MADE]:
        decode(_content(source, sample))
    return "made when they are needed" if source.make is not None else f"{len(samples)} files"


def _content(source: Source, sample: Sample) -> bytes:
    if source.make is None:
        return sample.path.read_bytes()
    content = source.make(sample)
    if not isinstance(content, bytes) or content != source.make(sample):
        raise CheckFailed(
            expected=f"make to give the same bytes for {sample.id!r} every time",
            came=f"{type(content).__name__}, different the second time",
            mend="draw from a generator that is seeded by the sample, not from a global one",
        )
    return content


CHECKS = (
    classes_are_named,
    there_are_images,
    ids_are_unique,
    a_second_call_gives_the_same,
    labels_are_within_the_classes,
    splits_are_disjoint,
    images_can_be_read,
)
