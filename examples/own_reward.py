"""Your own reward functions: `python examples/own_reward.py`. The demo's models and problems, in a minute or two.

A reward function takes lists and returns one number (or None: "does not apply") per completion, as in TRL's
GRPOTrainer. Dataset columns arrive by name. Functions must be importable, so guard the run with `__main__`.
"""

from rl_distill import Distiller


def brevity(completions: list[str], limit=60, **kwargs):
    """1 for an empty answer, 0 from `limit` characters on."""
    return [max(0.0, 1 - len(text) / limit) for text in completions]


def says_its_answer(completions: list[str], task, **kwargs):
    """1 if a math answer has a line with "####"; None, not 0, for other tasks."""
    return [None if name != "math" else float("####" in text) for text, name in zip(completions, task)]


if __name__ == "__main__":
    distiller = Distiller(
        config="quick",
        rewards=[
            {"fn": "task_check", "weight": 1.0},
            {"fn": f"{__file__}:brevity", "weight": 0.1, "kwargs": {"limit": 80}},
            says_its_answer,  # a function alone has weight 1
        ],
        output_dir="runs/own_reward",
    )
    distiller.train()
    print(distiller.report())
