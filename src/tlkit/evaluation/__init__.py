"""Scores of predictions, calibration, and tests whether two classifiers differ."""
