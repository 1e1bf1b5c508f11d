"""The typed, immutable models of all config files."""
