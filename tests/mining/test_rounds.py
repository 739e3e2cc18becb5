"""Rounds: what a round decides, what enters the next one, and that a finished step is not done again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import yaml

from rl_distill.cli import main
from rl_distill.demo.problems import make_problems
from rl_distill.errors import UserError
from rl_distill.files import read_jsonl
from rl_distill.mining import decisions, round_data, rounds_command
from rl_distill.mining.decisions import Standing, after_round, pool_share, standings, with_pool
from rl_distill.mining.rounds import ANSWERS, POOL, Options, Rounds
from tests import own_models

N = 200


def right(number, total=N):
    """The first `number` of `total` problems are right."""
    return [1.0] * number + [0.0] * (total - number)


def test_the_comparison_is_paired_and_leaves_out_what_is_not_graded():
    found = decisions.compared([1.0, 1.0, None, 0.0], [0.0, 1.0, 1.0, None])
    assert (found.n, found.difference, found.first_only, found.second_only) == (2, 0.5, 1, 0)
    same = decisions.compared(right(100), right(90))  # 10 of 200 changed, all one way
    deltas = numpy.array([1.0] * 10 + [0.0] * 190)
    draws = numpy.random.default_rng(1).choice(deltas, (4000, N)).mean(axis=1)  # an independent bootstrap
    assert same.low == pytest.approx(numpy.quantile(draws, 0.025), abs=0.006)
    assert same.high == pytest.approx(numpy.quantile(draws, 0.975), abs=0.006)


def test_a_better_round_becomes_the_best_and_a_clearly_worse_one_is_rolled_back():
    grades = {0: right(100), 1: right(130), 2: right(90), 3: right(129)}
    assert standings(grades) == [
        Standing(0, 0, 0, False),
        Standing(1, 1, 0, False),
        Standing(1, 1, 1, True),  # 20 points below round 1 for certain: its student goes on
        Standing(1, 3, 2, False),  # half a point may be chance: it goes on, and counts as worse
    ]
    assert [one.stops(2) for one in standings(grades)] == [False, False, False, True]


def test_small_losses_add_up_because_each_is_compared_with_the_best():
    grades = {0: right(100)} | {number: right(100 - 3 * number) for number in range(1, 4)}
    found = standings(grades)
    assert [one.rolled_back for one in found] == [False, False, True, True]
    steps = [decisions.compared(grades[k], grades[k - 1]) for k in (2, 3)]
    assert all(step.high >= 0 for step in steps)  # no single step is certain
    assert [one.current for one in found] == [0, 1, 0, 0]


def test_equal_rounds_and_ungraded_ones_count_neither_way():
    grades = {0: right(50), 1: right(40), 2: right(50), 3: [None] * N, 4: right(40)}
    assert [one.worse_in_a_row for one in standings(grades)] == [0, 1, 0, 0, 1]
    assert after_round(Standing(0, 2, 0), 3, grades).current == 3


def test_the_roll_back_is_rare_where_nothing_changed():
    """The same student answers again, each answer by chance: one in forty is below for certain."""
    draw, rolled = random.Random(0), 0
    for _ in range(200):
        first, second = ([float(draw.random() < 0.5) for _ in range(100)] for _ in range(2))
        rolled += after_round(Standing(), 1, {0: first, 1: second}).rolled_back
    assert rolled <= 14  # 2.5 % of 200 is 5, and 14 is four standard errors above that


def test_a_small_pool_gets_a_small_share():
    assert pool_share(0.2, 4, 1000, 1600) == 0.2
    assert pool_share(0.2, 4, 40, 1600) == pytest.approx(0.1)
    assert pool_share(0.2, 4, 0, 1600) == 0


def test_the_pool_stands_first_and_the_others_keep_their_proportions():
    base = [{"train": "a", "name": "a", "share": 7}, {"train": "b", "name": "b", "share": 3}]
    found = with_pool(base, "pool.jsonl", "math", 0.2)
    assert [entry["share"] for entry in found] == pytest.approx([0.2, 0.56, 0.24])
    assert (found[0]["train"], found[0]["name"], found[0]["task"]) == ("pool.jsonl", "mined", "math")
    assert with_pool(base, "pool.jsonl", "math", 0) == [base[0] | {"share": 0.7}, base[1] | {"share": 0.3}]


def rows(split, number):
    return [{"prompt": p.prompt, "task": p.task, **p.columns} for p in make_problems(split, number, 0, math_share=1.0)]


def written(path, given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


def test_the_parts_are_disjoint_and_hold_no_test_problem(tmp_path):
    given, held = rows("train", 100), rows("test", 10)
    problems = written(tmp_path / "p.jsonl", [*given, *held, {"answer": "3"}])
    test = written(tmp_path / "t.jsonl", held)
    options = Options(mining_share=0.25, ngram=60)
    parts = round_data.parted(tmp_path / "parts", [problems], test, None, options, 0, "prompt")
    found = {name: [row["prompt"] for row in read_jsonl(parts.path(name))] for name in round_data.PARTS}
    assert {name: len(own) for name, own in found.items()} == {"validation": 5, "mining": 25, "train": 70}
    assert sorted(prompt for own in found.values() for prompt in own) == sorted(row["prompt"] for row in given)
    reasons = [row["reason"] for row in read_jsonl(parts.path("left_out"))]
    assert reasons == ["contaminated"] * 10 + ["no_prompt"]
    before = parts.path("train").read_bytes()
    round_data.parted(tmp_path / "parts", [test], test, None, options, 0, "prompt")  # what is there stays
    assert parts.path("train").read_bytes() == before
    with pytest.raises(UserError, match="0 of 10 rows"):
        round_data.parted(tmp_path / "none", [test], test, None, options, 0, "prompt")


def test_the_pool_is_what_was_wrong_and_nothing_of_the_validation_part(tmp_path):
    problems, test = written(tmp_path / "p.jsonl", rows("train", 40)), written(tmp_path / "t.jsonl", rows("test", 4))
    parts = round_data.parted(tmp_path / "parts", [problems], test, None, Options(ngram=60), 0, "prompt")
    asked = {name: read_jsonl(parts.path(name)) for name in round_data.PARTS}
    wrong = asked["mining"][:3] + asked["validation"][:2]
    given = [{"prompt": row["prompt"], "completion": "#### 1000"} for row in wrong]
    given += [{"prompt": row["prompt"], "completion": f"#### {row['answer']}"} for row in asked["train"][:5]]
    answers = list(round_data.answers_in(Path(written(tmp_path / "answers.jsonl", given))))
    round_data.make_pool(parts, answers, tmp_path / "pool.jsonl", Options(), 0)
    pool = read_jsonl(tmp_path / "pool.jsonl")
    assert sorted(row["prompt"] for row in pool) == sorted(row["prompt"] for row in asked["mining"][:3])
    rejected = [row["reason"] for row in read_jsonl(tmp_path / "pool.rejected.jsonl")]
    assert sorted(rejected) == ["right"] * 5 + ["unknown_problem"] * 2


def finished(folder, number, before, after, pool):
    """What a round leaves behind."""
    place = folder / f"round_{number}"
    place.mkdir(parents=True)
    stages = [("before", before), ("after", after)]
    lines = [{"stage": stage, "grade": grade} for stage, grades in stages for grade in grades]
    written(place / "evaluations.jsonl", lines)
    overall = {"student_before": {"overall": sum(before) / N}, "student_after": {"overall": sum(after) / N}}
    (place / "results.json").write_text(json.dumps(overall))
    written(place / ANSWERS, [{"prompt": "x", "completion": "y", "grade": 0.0}] * 3)
    written(place / POOL, [{"prompt": str(i)} for i in range(pool)])
    (place / POOL).with_suffix(".report.json").write_text(json.dumps({"pool_rows": pool}))


def test_finished_rounds_are_read_and_it_stops_and_goes_back_to_the_best(tmp_path):
    models = own_models.write(tmp_path)
    config = own_models.config(tmp_path, tmp_path / "out", teacher__model=str(models / "large"))
    base = [{"train": "p.jsonl", "task": "math", "name": "problems", "share": 1.0}]
    parts = round_data.Parts(tmp_path, None, round_data.HeldGrams.of([], 13))
    for number, (before, after) in enumerate([(100, 130), (130, 90), (130, 80)], 1):
        finished(tmp_path / "out", number, right(before), right(after), pool=10 * number)
    rounds = Rounds(tmp_path / "out", config, base, parts, Options(rounds=5))
    found = rounds.run()
    assert found == json.loads((tmp_path / "out" / "rounds.json").read_text())
    assert (found["best"], found["result"], len(found["rounds"])) == (1, 1, 3)
    assert found["student"].endswith("round_1/student")
    assert [entry["goes_on_from"] for entry in found["rounds"]] == [0, 1, 1]
    assert [entry["rolled_back"] for entry in found["rounds"]] == [False, True, True]
    assert found["rounds"][1]["against_its_start"]["difference"] == pytest.approx(-0.2)
    assert "worse than the best for 2 rounds" in (tmp_path / "out" / "rounds.md").read_text()
    third = rounds.settings(3, start=1)
    assert third["student"]["model"].endswith("round_1/student")
    assert third["data"]["mixture"][0]["train"].endswith(f"round_1/{POOL}")  # the errors of the student it starts from
    assert third["seed"] == config.seed + 2
    prompts = config.ppo.num_steps * config.ppo.batch_size
    assert third["data"]["mixture"][0]["share"] == pytest.approx(min(0.2, 40 / prompts))
    assert third["warm_up"] is None


def yaml_of(folder, out, **changes):
    """The config file of rounds with the tiny models of a folder."""
    own = own_models.settings(folder, out, teacher__model=str(folder / "large"), data__train=None, **changes)
    nested = {}
    for name, value in own.items():
        rounds_command.set_dotted(nested, name, value)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(nested))
    return path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--share", "0.7"], "--share 0.7 is not in [0, 0.5]"),
        (["--augment", "typo"], "--augment typo: there are"),
        ([], "data.test"),
        (["--ppo.num_stepz", "3"], "num_steps"),
        (["--demo", "{}"], "demo: null"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, told):
    config = yaml_of(own_models.write(tmp_path), tmp_path / "out")
    given = ["rounds", "--config", str(config), "--problems", str(tmp_path / "train.jsonl"), *words]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert error.count("\n") == 0


def test_other_settings_do_not_go_on_with_the_same_folder(tmp_path):
    models = own_models.write(tmp_path)
    config = own_models.config(tmp_path, tmp_path, teacher__model=str(models / "large"))
    rounds_command._check_same(tmp_path, config, [], Options(), ["p"])
    rounds_command._check_same(tmp_path, config, [], Options(rounds=9, patience=1), ["p"])
    with pytest.raises(UserError, match=r"share: 0\.2, now 0\.3"):
        rounds_command._check_same(tmp_path, config, [], Options(share=0.3), ["p"])


def test_a_mixture_of_ones_own_is_the_base(tmp_path):
    models = own_models.write(tmp_path)
    mixture = [{"train": str(tmp_path / "train.jsonl"), "task": "math", "share": 3.0}]
    path = yaml_of(models, tmp_path / "out", data__mixture=mixture, data__test=str(tmp_path / "train.jsonl"))
    args = rounds_command.parser().parse_args(["--config", str(path), "--problems", "p.jsonl"])
    config, base = rounds_command.settings_of(args, {})
    assert base == [mixture[0] | {"name": "", "anchor_only": False, "part": "task"}]
    assert config.data.validation.endswith("problems/validation.jsonl")


@pytest.mark.slow
def test_two_rounds_survive_a_kill_and_go_on_from_each_other(tmp_path):
    models, out = own_models.write(tmp_path), tmp_path / "out"
    problems, test = written(tmp_path / "p.jsonl", rows("train", 100)), written(tmp_path / "t.jsonl", rows("test", 8))
    config = yaml_of(models, out, data__test=test, num_threads=1)
    words = ["rounds", "--config", str(config), "--problems", problems, "--rounds", "2", "--ngram", "60"]
    command = [sys.executable, "-m", "rl_distill.cli", *words]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    second = out / "round_2" / "run.yaml"  # written by the second run once it has begun
    while not second.is_file() and process.poll() is None:
        time.sleep(0.2)
    assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _wait_for_end_of_group(process.pid)  # the run ended with its parent
    assert not (out / "rounds.json").read_text().count('"round": 2')
    stamps = {name: (out / "round_1" / name).stat().st_mtime_ns for name in ("results.json", ANSWERS, POOL)}
    assert main(words) == 0
    assert stamps == {name: (out / "round_1" / name).stat().st_mtime_ns for name in stamps}
    found = json.loads((out / "rounds.json").read_text())
    assert [entry["round"] for entry in found["rounds"]] == [1, 2]
    ran = yaml.safe_load(second.read_text())
    assert ran["student"]["model"] == str(out / "round_1" / "student")
    assert ran["data"]["mixture"][0]["name"] == "mined"
    logged = [json.loads(line) for line in (out / "round_2" / "metrics.jsonl").read_text().splitlines()]
    assert sum(record.get("sampling/share/mined", 0) for record in logged) > 0
    assert read_jsonl(out / "round_1" / POOL)
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert page.count("<td>") > 16
    assert "Rounds: 2 of 2." in page


def _wait_for_end_of_group(group):
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("the run went on without its parent")
