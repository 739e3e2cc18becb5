"""Sampling completions: with a KV cache in this process, or by vLLM."""
