"""Finds, isolates and checks plugins and the parts that they register."""
