"""What acts where, and what must hold between sections."""
