"""Diagnosis of models and data before a long run, and the memory estimate."""
