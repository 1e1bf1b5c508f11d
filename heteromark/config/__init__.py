"""Schema, layering, composition and validation: the only code that reads YAML. Imports no torch."""
