"""Text policies: language models, adapters, prompt selection and small networks."""
