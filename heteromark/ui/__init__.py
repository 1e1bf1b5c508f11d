"""The Training History pages: what was trained, how it went, and what differs."""
