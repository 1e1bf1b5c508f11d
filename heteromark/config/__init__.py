"""Schema, layers, composition and validation of configs. Only code here reads YAML; no torch."""
