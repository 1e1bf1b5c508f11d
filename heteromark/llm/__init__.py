"""Language-model agents: groups whose observations and actions are text."""
