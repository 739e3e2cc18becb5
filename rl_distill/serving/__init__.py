"""An OpenAI-compatible server for students, its metrics, feedback log, A/B router and load test.

Needs the extra `serve`. It may assume models that rl_distill/models loads; it never runs code that a client sends
outside the sandbox.
"""
