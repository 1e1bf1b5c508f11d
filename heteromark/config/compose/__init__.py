"""From files and overrides to a run config."""
