"""Trained classifiers behind HTTP."""
