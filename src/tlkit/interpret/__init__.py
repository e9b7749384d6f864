"""Looking into a trained classifier."""
