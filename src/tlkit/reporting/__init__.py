"""From a run folder to a page that can be opened, sent and printed."""
