"""Looking into a trained classifier: where it looks, and what its layers respond to."""
