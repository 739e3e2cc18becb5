"""Models: tokenizers, tiny models made from a config, and the actor-critic that PPO trains."""
