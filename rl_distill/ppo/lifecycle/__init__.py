"""A run around its steps: its first batch, its interruptions, and how it is resumed."""
