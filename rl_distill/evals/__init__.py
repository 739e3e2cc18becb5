"""Evaluation of any causal LM with training's own generation, graders and sandbox; the numbers and their comparison."""
