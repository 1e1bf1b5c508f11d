"""The Training History pages."""
