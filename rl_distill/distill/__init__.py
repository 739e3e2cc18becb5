"""Supervised stages before PPO."""
