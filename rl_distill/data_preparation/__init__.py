"""`rl-distill prepare-data`: rows as they came become rows to train on, and what was left out is written down."""
