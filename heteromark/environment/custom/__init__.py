"""User-defined environments of any supported type."""
