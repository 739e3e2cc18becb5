"""The maths of PPO and distillation as functions of tensors: torch only, no settings, no device moves."""
