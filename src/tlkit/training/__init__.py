"""Training what is behind the frontier: the loop, optimisers, checkpoints."""
