"""The user's own prompts as problems."""
