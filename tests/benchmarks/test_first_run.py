"""The first run of docs/own_models.md: its rows and settings are what the run accepts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from rl_distill.config.reading import build
from rl_distill.config.schema import RunConfig

TEXT = (Path(__file__).parents[2] / "docs" / "own_models.md").read_text()
WALK = TEXT[TEXT.index("## A first run") : TEXT.index("## Output of a LoRA run")]


def block(language):
    return re.search(rf"```{language}\n(.*?)```", WALK, re.S)[1]


def test_the_rows_are_right_and_nothing_held_out_is_trained_on(tmp_path):
    subprocess.run([sys.executable, "-c", block("python")], cwd=tmp_path, check=True)
    rows = {
        n: [json.loads(x) for x in (tmp_path / f"{n}.jsonl").read_text().splitlines()] for n in ("train", "heldout")
    }
    prompts = {name: {row["prompt"] for row in found} for name, found in rows.items()}
    assert (len(prompts["train"]), len(prompts["heldout"])) == (360, 40)
    assert not prompts["train"] & prompts["heldout"]
    for row in rows["train"]:
        a, b = re.search(r"(\d+) \+ (\d+)", row["prompt"]).groups()
        assert int(row["answer"]) == int(a) + int(b)


def test_the_settings_exist():
    config = build(RunConfig, yaml.safe_load(block("yaml")), "")
    assert (config.demo, config.data.train, config.ppo.num_steps) == (None, "train.jsonl", 30)
