"""A backbone and a head as one classifier: frozen, partitioned at the frontier, saved and loaded."""
