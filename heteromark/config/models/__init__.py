"""The typed, frozen models of all that is configured."""
