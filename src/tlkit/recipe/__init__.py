"""Recipes: read, extended, overridden and written back. Nothing here knows plugins."""
