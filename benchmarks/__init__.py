"""Compares tlkit with other libraries: the same work, in one sitting, on one machine."""
