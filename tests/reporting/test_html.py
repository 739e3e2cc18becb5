"""The HTML report: self-contained, safe against hostile completions, right in its numbers, complete without answers."""

import json
import re
from html.parser import HTMLParser

import pytest

from rl_distill.cli import main
from rl_distill.reporting.html import runs, svg, write
from rl_distill.reporting.html.audit import share
from rl_distill.reporting.html.changes import marked

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"


def make_run(folder, *, answers=True, learning_rate=0.1):
    """10 problems: the teacher solves 8, the student 4 before and 9 after (one was lost, six were won)."""
    folder.mkdir(parents=True)
    grades = {"teacher": "1111111100", "before": "1111000000", "after": "0111111111"}
    rates = {stage: sum(map(int, g)) / 10 for stage, g in grades.items()}
    results = {
        "teacher": {"math": rates["teacher"], "overall": rates["teacher"]},
        "student_before": {"math": rates["before"], "overall": rates["before"]},
        "student_after": {"math": rates["after"], "overall": rates["after"]},
        "gap_recovered": {"math": 1.25, "overall": 1.25},
        "num_test": 10,
        "wall_seconds": {"ppo": 100.0, "after": 3.0},
        "seed": 4,
        "config": {"seed": 4, "output_dir": "/secret/place", "ppo": {"learning_rate": learning_rate}},
        "versions": {"torch": "9.9"},
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "report.md").write_text("Reproduce with `accelerate launch launch/ppo.py --seed 4`.")
    metrics = [
        {
            "step": s,
            "reward": s / 100,
            "rewards/bleu/mean": s / 90,
            "rewards/bleu/errors": 0.0,
            "kl": 0.1,
            "bleu/outages": 0.0,
        }
        | {"audit/bleu/correlation": 0.5, "audit/bleu/high_but_wrong": 0.25, "audit/bleu/hacking": float(s == 80)}
        | {"entropy": float("nan") if s == 3 else 0.2, "eval_overall": 0.5, "eval_math": 0.5}
        for s in range(1, 101)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    timing = [{"step": s, "seconds/generate": 1.0, "seconds/update": 2.0} for s in range(1, 101)]
    (folder / "timing.jsonl").write_text("".join(json.dumps(t) + "\n" for t in timing))
    if answers:
        lines = [
            {
                "stage": stage,
                "task": "math",
                "prompt": f"P{i}",
                "completion": f"{stage} {i} {HOSTILE}",
                "grade": float(g),
            }
            for stage, row in grades.items()
            for i, g in enumerate(row)
        ]
        (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class Reader(HTMLParser):
    """Tags that are open, those met, and the visible text."""

    VOID = ("meta", "rect", "line", "path", "circle", "br", "i", "link", "img", "input", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.problems = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.problems == []
    assert reader.open == []
    return reader, " ".join(" ".join(reader.text).replace("\u202f", " ").split())


def test_the_page_tells_the_numbers_with_their_intervals(tmp_path):
    _, text = read(write([make_run(tmp_path / "run")]))
    assert "The student rose from 40.0 % to 90.0 %, level with its teacher" in text
    assert "49.0 – 94.3" in text  # Wilson's interval of 8 in 10
    assert "+50.0" in text
    assert "125 %" in text
    assert "6 wrong, now right" in text
    assert "1 right, now wrong" in text
    assert "solves 2 that its teacher gets wrong" in text
    assert "accelerate launch launch/ppo.py --seed 4" in text
    assert "rose while the check fell, in 1 steps" in text
    assert "torch 9.9" in text


def test_nothing_is_fetched_and_hostile_text_stays_text(tmp_path):
    path = write([make_run(tmp_path / "run")])
    reader, _ = read(path)
    page = path.read_text()
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)[a-z]", re.sub(r"<script>.*?</script>", "", page, flags=re.S))
    assert [
        tag for tag, attrs in reader.tags if "src" in attrs or "href" in attrs or tag in ("img", "link", "iframe")
    ] == []
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert "<script>alert(1)</script>" in "".join(reader.text)  # shown, not run
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]


def test_the_changed_answers_stand_side_by_side(tmp_path):
    reader, _ = read(write([make_run(tmp_path / "run")]))
    kinds = [attrs["data-kind"] for tag, attrs in reader.tags if tag == "article"]
    assert kinds == ["fixed task-math"] * 6 + ["broken task-math"]


def test_what_differs_between_two_answers_is_marked_and_escaped():
    assert marked("6-2=3 <b>", "6-2=4 <b>") == ("6-2=<mark>3</mark> &lt;b&gt;", "6-2=<mark>4</mark> &lt;b&gt;")
    assert marked("", "x") == ('<span class="meta">(nothing)</span>', "<mark>x</mark>")


def test_a_run_without_single_answers_says_so_and_still_has_intervals(tmp_path):
    _, text = read(write([make_run(tmp_path / "run", answers=False)]))
    assert "kept no answers to single problems (evaluations.jsonl)" in text
    assert "49.0 – 94.3" in text


def test_settings_name_what_differs_and_no_place_of_this_machine(tmp_path):
    _, text = read(write([make_run(tmp_path / "run")]))
    assert "ppo.learning_rate 0.1" in text
    assert "output_dir" not in text.partition("All ")[0]


def test_several_runs_share_a_page_in_colours_of_their_own(tmp_path):
    folders = [make_run(tmp_path / "one"), make_run(tmp_path / "two", learning_rate=0.2)]
    path = tmp_path / "both.html"
    assert main(["report", *map(str, folders), "--out", str(path)]) == 0
    reader, text = read(path)
    assert "2 runs compared" in text
    assert "ppo.learning_rate 0.1 0.2" in text
    charts = [json.loads(attrs["data-chart"]) for tag, attrs in reader.tags if tag == "svg" and "data-chart" in attrs]
    kl = next(chart for chart in charts if [s["label"] for s in chart["series"]] == ["one", "two"])
    assert [series["color"] for series in kl["series"]] == [0, 1]
    assert path.read_text().count('class="level"') == 2  # each run is compared with its own teacher


def test_an_evaluation_has_a_page_too(tmp_path):
    found = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 10}
    results = {
        "tasks": {
            "gsm8k": {
                "protocol": "chat",
                "extraction": "boxes",
                "models": {"model": {"metrics": {"strict": found}, "corpus": {"bleu4": 0.25}, "num_problems": 10}},
                "decontamination": {"num_overlapping": 1, "num_problems": 10, "n": 13, "training_data": "train.jsonl"},
                "comparisons": {
                    "teacher": {
                        "difference": -0.1,
                        "ci95": [-0.3, 0.1],
                        "better_on": 1,
                        "worse_on": 2,
                        "retention": 0.8,
                    }
                },
                "gap_recovered": {"value": 0.6, "ci95": [0.4, 0.9], "n": 10},
            }
        },
        "comparisons": {"teacher": {"compression_parameters": 14.5}},
        "command": "accelerate launch launch/eval.py",
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    _, text = read(write([tmp_path]))
    assert "model strict 50.0 % 20.0 % – 80.0 % 10" in text
    assert "Against teacher: -10.0 points (-30.0 to +10.0)" in text
    assert "Gap recovered: 60.0 % (40.0 % to 90.0 %)" in text
    assert "14.50×" in text
    assert "model bleu4 25.0 % – 10" in text
    assert "1 of 10 problems share a run of 13 words with a prompt of train.jsonl" in text


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path)])
    assert ended.value.code == 2
    assert "give the output_dir of a finished run" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(runs.ReportError, match="is damaged"):
        write([tmp_path])


def test_ticks_are_round_and_inside():
    assert svg.ticks(0.0, 1.0) == [0.0, 0.5, 1.0]
    assert svg.ticks(0.13, 0.42) == [0.2, 0.3, 0.4]
    assert svg.ticks(0, 400, 5) == [0, 100, 200, 300, 400]


def test_a_moving_mean_is_centred_and_shorter_at_the_ends():
    assert svg.moving_mean([(1, 0.0), (2, 3.0), (3, 6.0), (4, 9.0)], 3) == [(1, 1.5), (2, 3.0), (3, 6.0), (4, 7.5)]


def test_a_point_lands_where_its_value_is():
    frame = svg.Frame(0, 10, 0.0, 1.0)
    assert (frame.x(0), frame.x(10)) == (svg.LEFT, svg.WIDTH - svg.RIGHT)
    assert (frame.y(0.0), frame.y(1.0)) == (svg.HEIGHT - svg.BOTTOM, svg.TOP)


def outcome(folder, before, after, teacher=0.8):
    """The page of a run that ended with these accuracies, of which no answers were kept."""
    make_run(folder, answers=False)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    for key, value in (("teacher", teacher), ("student_before", before), ("student_after", after)):
        results[key] = {"math": value, "overall": value}
    results["gap_recovered"] = {"math": None, "overall": None}
    path.write_text(json.dumps(results))
    return read(write([folder]))[1]


def test_a_student_that_did_not_move_did_not_rise(tmp_path):
    text = outcome(tmp_path / "run", 0.0, 0.0)
    assert "The student stayed at 0.0 %" in text
    text = outcome(tmp_path / "rounds", 0.0, 0.0004)  # both are shown as 0.0 %
    assert "The student stayed at 0.0 %" in text
    assert "+0.0" not in text
    assert "-0.0" not in text


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [(0.5, 0.5, 'gain num ">0.0'), (0.4, 0.5, 'gain num good">+10.0'), (0.5, 0.4, 'bad">-10.0')],
)
def test_a_change_of_nothing_is_neither_good_nor_bad(tmp_path, before, after, shown):
    outcome(tmp_path / "run", before, after)
    assert shown in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_grades_says_so(tmp_path):
    text = outcome(tmp_path / "run", None, None, None)
    assert "The student's answers could not be graded" in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (0.0, "0"), (1.0, "100 %"), (0.996, "100 %"), (0.0123, "1.2 %"), (0.25, "25 %"), (1e-7, "< 0.01 %")],
)
def test_shares_are_written_out(value, words):
    assert share(value) == words
