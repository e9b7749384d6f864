"""Images: read, divided into splits, made into batches."""
