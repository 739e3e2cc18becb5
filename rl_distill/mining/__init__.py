"""`rl-distill mine`: problems that a student got wrong become the pool of the next run."""
