"""Helpers that know nothing of images."""
