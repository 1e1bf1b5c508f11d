"""Opponents: players of the seats that do not learn."""
