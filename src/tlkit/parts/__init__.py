"""What plugins hand over: plain values and small classes."""
