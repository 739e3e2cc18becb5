"""The page of a run that lasts, its progress bars, and the model card of what it exports."""

import dataclasses

import yaml

from rl_distill import pipeline, progress
from rl_distill.config import RunConfig, load_config
from rl_distill.evals.evaluation import Evaluation
from rl_distill.reporting.model_card import model_card
from rl_distill.types import Completion, Finish
from tests.tiny_run import make_config, make_context


def test_the_page_is_redrawn_at_every_evaluation_and_reloads_itself(tmp_path):
    config = make_config(tmp_path, evaluation__every_steps=1, ppo__num_steps=2)
    context = make_context(config)
    problems = context.splits.test
    right = Evaluation(problems, [Completion("", [0], Finish.STOP)] * 4, [1.0, 1.0, 1.0, 0.0])
    trainer = pipeline.make_trainer(config, context, {"teacher": right, "student": right})
    seen = []
    page = tmp_path / "report.html"
    evaluate = trainer.evaluate
    trainer.evaluate = lambda *args, **kwargs: (evaluate(*args, **kwargs), seen.append(page.read_text()))[0]
    pipeline.train(config, trainer)
    assert ["Training: step 1 of 2" in text for text in seen] == [True, False]
    assert ["Training: step 2 of 2" in text for text in seen] == [False, True]
    assert all('http-equiv="refresh" content="20"' in text for text in seen)
    assert "75.0 %" in seen[0]  # three of four


def test_a_bar_is_shown_only_for_work_that_takes_longer_than_the_limit(monkeypatch, capsys):
    assert list(progress.progress_bar([1, 2], "counting")) == [1, 2]
    assert "counting" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    assert list(progress.progress_bar([1, 2], "counting")) == [1, 2]
    assert "counting" in capsys.readouterr().err


RESULTS = {
    "teacher": {"math": 0.5, "overall": 0.5},
    "student_before": {"math": 0.25, "overall": 0.25},
    "student_after": {"math": float("nan"), "overall": 0.5},
    "num_test": 100,
    "seed": 3,
    "ledger": {"student_sequences": 1234},
    "versions": {"torch": "9.9"},
}


def test_the_card_has_the_base_models_licence_results_and_command(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# base\n")
    own = {"demo": None, "student.model": str(tmp_path), "teacher.model": "big/teacher", "data.train": "prompts.jsonl"}
    card = model_card(load_config(None, own), RESULTS, "rl-distill ppo --seed 3")
    header = yaml.safe_load(card.split("---")[1])
    assert (header["license"], header["base_model"]) == ("mit", str(tmp_path))
    assert "could not be read" not in card
    assert "| overall | 50.0 % (40.4 to 59.6) | 25.0 % (17.5 to 34.3) | 50.0 % (40.4 to 59.6) |" in card  # Wilson
    assert "| math | 50.0 % | 25.0 % | not graded |" in card
    assert "rl-distill ppo --seed 3" in card
    assert "`big/teacher`" in card


def test_the_card_of_the_demo_says_that_everything_is_synthetic():
    card = model_card(dataclasses.replace(RunConfig(), seed=3), RESULTS, "make demo")
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    assert "synthetic" in card
