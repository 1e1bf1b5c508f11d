"""Team configs in PettingLLMs' dialect, and what they mean here."""
