"""What the commands do around training: requests, launching, checklists, output, loggers."""
