"""Compose a run config from files and overrides."""
