"""Environments of the user's own, whatever API they have."""
