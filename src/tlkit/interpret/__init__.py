"""Explains trained classifiers: where they look, and what their layers respond to."""
