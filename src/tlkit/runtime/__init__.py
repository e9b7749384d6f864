"""Where and how precisely to compute."""
