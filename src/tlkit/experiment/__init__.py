"""Running a recipe: checked, planned, run phase by phase, and recorded in a run folder."""
