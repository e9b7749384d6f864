"""Images: found, read, split and loaded in batches."""
