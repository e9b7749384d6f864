"""tlkit beside what people use today: the same work, in one sitting, on one machine."""
