"""Makes pages of run folders that can be opened, sent and printed."""
