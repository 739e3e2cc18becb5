"""PPO on transformers.Trainer: rollouts, minibatches, the KL anchor, the trainer and what watches it."""
