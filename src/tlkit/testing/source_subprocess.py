"""Makes a source in a process of its own, from name, options and root as JSON, and prints it as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tlkit.parts.source import Source
from tlkit.plugins.loader import load_registry

if __name__ == "__main__":
    name, options, root = json.loads(sys.argv[1])
    source: Source = load_registry().make("source", name, options, Path(root) if root else None)
    samples = [(each.id, str(each.path), each.label, each.split) for each in source.samples]
    unlabelled = [(each.id, str(each.path)) for each in source.unlabelled]
    json.dump({"classes": source.classes, "samples": samples, "unlabelled": unlabelled}, sys.stdout)
