"""Tables of `datasets` as a source: Parquet files, image folders, what `save_to_disk` wrote, the hub."""

from __future__ import annotations

from pathlib import Path

from tlkit import Source


def hf_datasets(
    root: Path | None = None,
    *,
    hub: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    own_splits: bool = True,
) -> Source:
    """Images in a Parquet file, a folder of Parquet files, an image folder, or what save_to_disk wrote.

    Images inside a table are written to tlkit's cache folder once, byte for byte. A row whose label is empty
    or -1 is an unlabelled image.

    Args:
        root: the file or the folder.
        hub: an id on the hub, instead of a root.
        image_column: the column with the images; required only if there are several.
        label_column: the column with the classes; required only if there are several.
        own_splits: true: use the data's own train, validation and test splits; false: tlkit draws them.
    """
    from tlkit_huggingface.rows import to_source
    from tlkit_huggingface.tables import read_tables

    where, tables = read_tables(root, hub)
    return to_source(where, tables, image_column, label_column, own_splits=own_splits)
