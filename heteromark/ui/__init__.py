"""The Training History pages: runs, their results, and how they differ."""
