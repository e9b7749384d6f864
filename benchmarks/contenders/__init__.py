"""Each does the same work, as its own documentation shows; ``python -m``, in a process of its own."""
