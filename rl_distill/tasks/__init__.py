"""Tasks: where problems come from."""
