"""The columns of a manifest: a Parquet file that lists images, with what is known of their files."""

from __future__ import annotations

#: What every manifest has: the path, relative to the root, and the name of the class, or null.
REQUIRED = ("path", "label")
#: The image's name, if it is not the path; its split, or null; and its group, or null.
OPTIONAL = ("id", "split", "group")
#: What is known of the file; it is read again if its size in bytes or its time of modification has changed.
RECORDED = ("size", "mtime", "sha256", "width", "height")
#: The key of the file's metadata that has the class names in the order of their labels, as JSON.
CLASSES_KEY = b"tlkit.classes"
