"""The contenders: each does the same work as its own documentation shows, in a process of its own."""
