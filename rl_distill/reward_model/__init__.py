"""Trains the network behind the `learned` reward (reward_models/learned_model.py)."""
