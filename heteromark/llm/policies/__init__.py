"""What responds to prompts: language models, adapters, small networks."""
