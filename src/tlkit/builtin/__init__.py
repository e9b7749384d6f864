"""The parts that tlkit comes with: plugins like any other, registered through the same hooks."""
