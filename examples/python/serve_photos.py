"""From a list of photos and their labels to a classifier behind HTTP, in Python alone.

python serve_photos.py PHOTOS [BACKBONE]     photos are called cat.1.jpg, dog.1.jpg, …
"""

import sys
from pathlib import Path

import tlkit


def main(folder: Path, backbone: str | None = None) -> None:
    photos = sorted(folder.glob("*.jpg"))
    labels = [photo.name.split(".")[0] for photo in photos]

    run = tlkit.fit(photos, labels, backbone=backbone, quality="fast", out="runs/photos")
    scores = run.results.phases[-1].measured
    low, high = scores.ci95
    print(f"accuracy {scores.accuracy:.3f} ({low:.3f} to {high:.3f}) on {scores.n} photos")

    for photo in tlkit.predict("runs/photos", photos[:3], top=2):
        print(photo.image, photo.label, photo.top)

    tlkit.serve("runs/photos", port=0, ready=lambda _service, address: print(address, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
