"""One factory per kind of component, each with a registry. Importing it imports no torch."""
