"""Adapters from environments to batched TorchRL environments. Importing this imports no torch."""
