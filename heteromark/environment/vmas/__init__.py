"""VMAS, the vectorised multi-agent simulator."""
