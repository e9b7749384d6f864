"""What predictions are worth, and whether two classifiers differ."""
