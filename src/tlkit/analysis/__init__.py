"""Questions to the images, answered from cached features."""
