"""What surrounds a training: requests, launching, checklists, consoles, loggers."""
