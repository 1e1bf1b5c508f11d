"""What happens between a batch and the updated weights. Importing it imports no torch."""
