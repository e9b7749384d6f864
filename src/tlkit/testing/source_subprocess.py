"""Makes a source in a process of its own: reads name, options and root as JSON, and prints it as JSON.

Run as a script by `tlkit.testing.sources`; nothing imports it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tlkit.parts.source import Source
from tlkit.plugins.loader import load_registry

if __name__ == "__main__":
    name, options, root = json.loads(sys.argv[1])
    source: Source = load_registry().make("source", name, options, Path(root) if root else None)
    samples = [
        (sample.id, str(sample.path), sample.label, sample.split, sample.labels) for sample in source.samples
    ]
    unlabelled = [(sample.id, str(sample.path)) for sample in source.unlabelled]
    json.dump({"classes": source.classes, "samples": samples, "unlabelled": unlabelled}, sys.stdout)
