"""Team configs in PettingLLMs' format, and their translation into run configs."""
