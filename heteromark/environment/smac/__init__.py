"""Environments with the SMAC API."""
