"""The built-in cheats, how often they win by hand, and the gate that they hold."""

import json
import random
import re
from dataclasses import replace

import pytest

from reward_models.learned import QUALITY_FILE, PoorQualityError, learned
from rl_distill.config import ConfigError
from rl_distill.reward_model.examples import Example
from rl_distill.reward_model.probes import is_probe, probe_results, probes_of, wins
from tests.reward_model.test_training import make_config, quality

RIGHT = "She has 3 + 14 = 17 apples. The answer is 17"


def example(prompt, source, verdict, score=0.0):
    return Example(prompt, "math", prompt, None, source, source, score, verdict)


def gamed(**rates):
    """quality.json of a good model that ranks wrong numbers above right ones this often, by output."""
    result = {"num_pairs": 40, "wins_score": 0.0, "wins_correct": 0.0} | rates
    found = quality()
    return found | {
        "limits": found["limits"] | {"probe_wins": 0.2},
        "probes": {"with_teacher": {"wrong_number": result}},
    }


def test_each_cheat_is_what_its_name_says(tokenizer):
    found = probes_of(RIGHT, tokenizer, 30, random.Random(0))
    assert sorted(found["shuffled_words"].split()) == sorted(RIGHT.split())
    assert found["shuffled_words"] != RIGHT
    wrong = found["wrong_number"]
    assert wrong[:-2] == RIGHT[:-2]
    assert re.fullmatch(r"\d\d", wrong[-2:])
    assert wrong[-2:] != "17"
    for kind, piece in (("repeated_ngram", "answer is 17 "), ("long_filler", "Let us think about this once more")):
        assert found[kind].startswith(piece)
        assert len(tokenizer(found[kind], add_special_tokens=False)["input_ids"]) <= 30
    assert "3" not in found["flattery"]
    assert "wrong_number" not in probes_of("no digits here", tokenizer, 30, random.Random(0))
    assert found == probes_of(RIGHT, tokenizer, 30, random.Random(0))


def test_a_one_digit_number_never_stays(tokenizer):
    for seed in range(50):
        text = probes_of("It is 9", tokenizer, 10, random.Random(seed))["wrong_number"]
        assert text.startswith("It is ")
        assert text != "It is 9"


def test_wins_count_pairs_of_one_prompt_and_halve_ties():
    rows = [
        example("p", "student", 1.0),
        example("p", "student", 0.0),
        example("p", "teacher", 1.0),
        example("p", "probe_flattery", 0.0),
        example("q", "probe_flattery", 0.0),  # nobody was right about q
    ]
    scores, correct = [0.5, 0.9, 0.2, 0.5, 1.0], [0.4, 0.9, 0.3, 0.35, 1.0]
    hidden = probe_results(rows, scores, correct, with_teacher=False)["flattery"]
    assert (hidden["num_pairs"], hidden["wins_score"], hidden["wins_correct"]) == (2, 0.75, 0.5)
    shown = probe_results(rows, scores, correct, with_teacher=True)["flattery"]
    assert (shown["num_pairs"], shown["wins_score"], shown["wins_correct"]) == (1, 0.5, 0.0)
    assert shown["mean_score"] == 0.75
    assert wins([], []) is None


def test_the_gate_refuses_by_output_and_says_which_cheat(tmp_path):
    (tmp_path / QUALITY_FILE).write_text(json.dumps(gamed(wins_score=0.3, wins_correct=0.1)))
    with pytest.raises(PoorQualityError, match=r"wrong number outranks honest right answers in 30% of 40 pairs"):
        learned(str(tmp_path))
    learned(str(tmp_path), output="correct")
    learned(str(tmp_path), force=True)


def test_a_batch_is_held_to_the_cheats_of_what_it_shows(tmp_path):
    found = gamed()
    found["probes"]["without_teacher"] = {"flattery": {"num_pairs": 9, "wins_score": 0.9, "wins_correct": 0.9}}
    (tmp_path / QUALITY_FILE).write_text(json.dumps(found))
    score = learned(str(tmp_path))
    with pytest.raises(PoorQualityError, match=r"flattery .* 90% of 9 pairs \(without teacher\)"):
        score(prompts=["p"], completions=["c"])
    assert score(prompts=[], completions=[]) == []


def test_a_model_that_every_cheat_games_is_not_kept_unless_forced_and_then_marked(tmp_path):
    from rl_distill.reward_model.quality import admit

    config = make_config(tmp_path)
    found = gamed(wins_score=0.3, wins_correct=0.3)
    with pytest.raises(ConfigError, match=r"can be gamed: .*or keep it with reward_model\.force: true"):
        admit(config, found)
    assert not (tmp_path / QUALITY_FILE).exists()
    admit(replace(config, reward_model=replace(config.reward_model, force=True)), found)
    assert json.loads((tmp_path / QUALITY_FILE).read_text())["forced"]
    with pytest.raises(PoorQualityError):
        learned(str(tmp_path), output="correct")
    admit(config, gamed(wins_score=0.3) | {"forced": False})
    assert not json.loads((tmp_path / QUALITY_FILE).read_text())["forced"]


def test_cheats_are_scored_by_the_real_rewards_and_never_right(tmp_path):
    """Made of the problems' own solutions, which the real graders take for right."""
    from rl_distill.reward_model.data import probe_rows
    from tests.tiny_run import make_context

    config = make_config(tmp_path)
    context = make_context(config)
    problems = context.splits.train[:12]
    honest = [Example(p.key, p.task, p.prompt, p.solution, p.solution, "teacher", 1.0, 1.0) for p in problems]
    rows = probe_rows(config, context, problems, [*honest, *(replace(row, verdict=0.0) for row in honest)])
    assert all(is_probe(row) for row in rows)
    assert {row.verdict for row in rows} == {0.0}
    assert {"probe_flattery", "probe_wrong_number"} <= {row.source for row in rows}
    wrong = [row for row in rows if row.source == "probe_wrong_number"]
    assert all(0.0 < row.score <= 0.7 for row in wrong)  # much of the teacher's wording, no check
    assert probe_rows(config, context, problems, [replace(row, verdict=0.0) for row in honest]) == []
