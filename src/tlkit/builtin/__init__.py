"""The toolkit's own parts: plugins like any other, registered through the same hooks."""
