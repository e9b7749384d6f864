"""An audit of real photos, as `tlkit audit` writes it."""

from __future__ import annotations

from pathlib import Path

from tlkit.analysis.audit_file import (
    Audit,
    AuditedImage,
    CopyPair,
    LabelErrors,
    LabelSuspect,
    Neighbour,
    Unlike,
)
from tlkit.parts.source import SplitName
from tlkit.utils.hashing import file_sha256
from tlkit.utils.json_files import write_json

CLASSES = ("daisy", "dandelion", "rose", "sunflower", "tulip")


def write_audit(folder: Path, root: Path, flowers: Path) -> Path:
    """Writes an audit with 20 suspects: 14 labels, four pairs of copies, two images unlike all others.

    Args:
        folder: where to write audit.json.
        root: where to copy the photos to.
        flowers: the folder of photos.
    """
    images: dict[str, AuditedImage] = {}

    def add(split: SplitName, name: str, number: int) -> str:
        photo = sorted((flowers / split / name).iterdir())[number]
        path = f"{split}/{name}/{number}.jpg"
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photo.read_bytes())
        neighbours = tuple(
            Neighbour(
                image=other.image, path=other.path, sha256=other.sha256, label=other.label, similarity=0.8
            )
            for other in list(images.values())[-3:]
        )
        images[path] = AuditedImage(
            image=path, path=path, sha256=file_sha256(target), label=name, split=split, neighbours=neighbours
        )
        return path

    labels = [add("train", CLASSES[number % 5], number) for number in range(14)]
    train = [add("train", "rose", 30 + number) for number in range(4)]
    others = [add("test", name, 40) for name in ("rose", "tulip", "rose", "daisy")]
    others[2] = add("test", "rose", 41)
    unlike = [add("test", "sunflower", number) for number in range(2)]
    audit = Audit(
        schema_version=1,
        name="flowers",
        target=str(root),
        root=str(root),
        backbone="test",
        weights=None,
        classes=dict.fromkeys(CLASSES, 100),
        small_classes=(),
        accuracy=0.9,
        images=images,
        rejected=(),
        pairs=tuple(
            CopyPair(images=pair, kind="near", correlation=0.97) for pair in zip(others, train, strict=True)
        ),
        groups=(),
        series=(),
        labels=LabelErrors(
            suspects=tuple(
                LabelSuspect(
                    image=image,
                    label=CLASSES[number % 5],
                    suggested=CLASSES[(number + 1) % 5],
                    score=20.0 - number,
                    probability=0.03,
                )
                for number, image in enumerate(labels)
            ),
            precision=0.8,
            recall=0.8,
            method="",
        ),
        unlike=tuple(Unlike(image=image, label="sunflower", similarity=0.3) for image in unlike),
        confusions=(),
        shortcuts=(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", audit)
    return folder
