"""`tlkit fit`: from a folder of images to a classifier, without a recipe."""
