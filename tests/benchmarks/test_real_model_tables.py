"""The tables of the real-model benchmark, from parts written by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import real_model_tables as tables

NAMES = {"before": "as it is", "anchored_ppo": "PPO"}


def part(seed, sums, **more):
    verdicts = {"sums": sums, "letters": [1.0, 0.0]}
    return {"seed": seed, "verdicts": verdicts, "perplexity": {"english": 10.0 + seed}} | more


def test_seeds_are_averaged_per_problem_and_gains_are_paired():
    curves = {"explained_variance": [-0.5, 0.1, 0.3]}
    more = {"cpu_seconds": 100, "sequences": 64, "learning_rate": 1e-5, "curves": curves}
    parts = {
        "before": [part(0, [0.0, 0.0, 1.0, 0.0])],
        "anchored_ppo": [part(0, [1.0, 0.0, 1.0, 1.0], **more), part(1, [1.0, 0.0, 1.0, 0.0], **more)],
    }
    assert tables.by_problem(parts["anchored_ppo"], "sums") == [1.0, 0.0, 1.0, 0.5]
    accuracy = tables.accuracy_table(parts, NAMES, ["sums"]).splitlines()
    assert accuracy[2].startswith("| as it is | 1 | 0.250 [")
    assert "| 0.625 [" in accuracy[3]
    assert "| +0.375 [" in accuracy[3]
    assert accuracy[3].endswith("| 64 | 1e-05 | 100 |")
    assert len({line.count("|") for line in accuracy}) == 1
    forgetting = tables.forgetting_table(parts, NAMES, ["sums"]).splitlines()
    assert forgetting[3] == "| PPO | 0.500 | 10.50 |"
    assert tables.critic_table(parts).splitlines()[2] == "| 0 | -0.50 | -0.03 | 0.30 |"
    assert tables.critic_table({"before": parts["before"]}) == ""
