"""Cached features: computed once per image, stored by content, and fed to training."""
