"""Best of n: of several sampled answers the one that a trained reward model likes most, beside greedy and majority."""
