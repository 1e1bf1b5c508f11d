"""A run's identity, its record and the run store. Imports no torch."""
