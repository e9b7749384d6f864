"""Using a trained classifier: prediction, evaluation and export."""
