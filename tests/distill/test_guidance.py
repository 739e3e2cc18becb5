"""Weights that follow measured gradients: measured as by hand, capped, the same however a step is split, resumed."""

import pytest
import torch

from rl_distill.config import ConfigError, GuidedConfig
from rl_distill.distill.guidance import Guidance
from rl_distill.distill.stage import check_distillation
from tests import test_student_stages as stages
from tests.distill_case import make_case, make_config, make_distiller

GUIDED = {"guided__every_steps": 1, "guided__memory": 0.0, "alpha__start": 0.25, "num_steps": 1, "optimizer": "adamw"}


def cosines_by_hand(config, rows):
    """Per task: with logits W h, dCE/dh = W'(p - y) and dKL/dh = W'(p - q), over all tokens of the task."""
    student, teacher, _, examples = make_case(config)
    weight = student.get_output_embeddings().weight.detach()
    found = {}
    for e in (examples[row.example] for row in rows):
        ids, first = torch.tensor([e.prompt_ids + e.completion_ids]), len(e.prompt_ids) - 1
        with torch.no_grad():
            p, q = (model(ids).logits[0, first:-1].softmax(-1) for model in (student, teacher.model))
        y = torch.nn.functional.one_hot(torch.tensor(e.completion_ids), p.shape[-1])
        ours, theirs = (p - y) @ weight, (p - q) @ weight
        sums = found.setdefault(e.task, torch.zeros(3, dtype=torch.float64))
        sums += torch.stack([(ours * theirs).sum(), ours.square().sum(), theirs.square().sum()]).double()
    return {task: (s[0] / (s[1] * s[2]).sqrt()).item() for task, s in found.items()}


@pytest.mark.parametrize("micro_batch_size", [3, 8])
def test_the_measured_conflict_of_tasks_is_that_of_the_gradients_by_hand(tmp_path, micro_batch_size):
    trainer = make_distiller(tmp_path, micro_batch_size=micro_batch_size, **GUIDED)
    expected = cosines_by_hand(trainer.config, trainer.order.rows(0))
    trainer.train()
    measured = {part: values[0] for part, values in trainer.guidance.averages.items()}
    assert set(expected) == {"math", "code"}
    assert measured == pytest.approx({f"kd/{task}": cosine for task, cosine in expected.items()}, rel=1e-4)
    assert trainer.guidance.weights() == pytest.approx({part: 2**cosine for part, cosine in measured.items()})


def test_layers_are_measured_and_do_not_depend_on_the_split(tmp_path):
    inner = {"inner__hidden_map": {0: 1, 1: 3}, "inner__attention_map": {1: 2}}
    found = []
    for size in (2, 8):
        trainer = make_distiller(tmp_path / str(size), micro_batch_size=size, **inner, **GUIDED)
        trainer.train()
        found.append({part: values[0] for part, values in trainer.guidance.averages.items()})
    assert set(found[0]) == {"kd/math", "kd/code", "hidden/0", "hidden/1", "attention/1"}
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-5)
    assert all(-1 <= cosine <= 1 and cosine != 0 for cosine in found[0].values())


def test_weights_by_variance_favour_the_steady_and_stay_below_the_cap():
    guidance = Guidance(GuidedConfig(by="variance", cap=1.5), ["kd/a", "kd/b", "hidden/0"])
    # coefficients of variation: sqrt(5 - 4) / 2 = 0.5, sqrt(1.01 - 1) / 1 = 0.1; their mean is 0.3
    guidance.load_state_dict({"averages": {"kd/a": [2.0, 5.0, 3], "kd/b": [1.0, 1.01, 3]}})
    assert guidance.weights() == pytest.approx({"kd/a": 1 / 1.5, "kd/b": 1.5, "hidden/0": 1.0})  # 0.6 and 3, capped
    guidance.settings = GuidedConfig(by="variance", cap=10.0)
    assert guidance.weights() == pytest.approx({"kd/a": 0.6, "kd/b": 3.0, "hidden/0": 1.0})


def test_a_cap_of_one_is_the_run_without_guidance(tmp_path):
    def weights(folder, **settings):
        trainer = make_distiller(folder, num_steps=3, optimizer="adamw", inner__hidden_map="uniform", **settings)
        trainer.train()
        return {name: p.detach() for name, p in trainer.student.named_parameters()}

    torch.manual_seed(0)
    plain = weights(tmp_path / "plain")
    torch.manual_seed(0)
    guided = weights(tmp_path / "guided", guided__cap=1.0, guided__every_steps=2)
    assert all(torch.allclose(plain[name], guided[name], atol=1e-6) for name in plain)


def test_the_weights_reach_the_loss_and_the_log(tmp_path):
    trainer = make_distiller(tmp_path, **GUIDED | {"num_steps": 10})
    trainer.train()
    record = next(record for record in trainer.state.log_history if "guided/kd/math" in record)
    assert record["guided/kd/math"] == trainer.guidance.weights()["kd/math"] != 1.0
    expected = 0.75 * record["divergence"]
    assert record["loss/kd"] != pytest.approx(expected, rel=1e-3)
    assert expected / 2 <= record["loss/kd"] <= expected * 2


def test_an_interrupted_guided_stage_continues_to_the_same_student(tmp_path, monkeypatch):
    guided = {"distill__guided": {"every_steps": 1}, "distill__inner": {"hidden_map": "uniform"}}
    whole = stages.distilled(stages.make_config(tmp_path / "whole", **guided))
    config = stages.make_config(tmp_path / "cut", **guided)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stages.distilled(config, patch, stop_at=3)
    resumed = stages.distilled(config)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha__start": 1.0}, "nothing to weigh at alpha 1"),
        ({"teacher_mix__start": 0.2}, "set distill.on_policy.start above 0"),
    ],
)
def test_what_cannot_be_guided_or_mixed_is_refused_in_one_line(tmp_path, settings, message):
    config = make_config(tmp_path, **{"guided__cap": 2.0} | settings)
    with pytest.raises(ConfigError, match=message):
        check_distillation(config, config.distill)


def test_norms_are_averaged_per_token_and_their_spread_needs_two_measurements():
    guidance = Guidance(GuidedConfig(by="variance", every_steps=2, memory=0.5, cap=10.0), ["kd/a", "kd/b"])

    class State:
        global_step = 1  # after step 0, which was measured

    for norm_a, norm_b in ((2.0, 3.0), (4.0, 3.5)):
        tokens = 7.0
        guidance.sums = {
            "kd/a": torch.tensor([0.0, 0.0, tokens * norm_a**2, tokens], dtype=torch.float64),
            "kd/b": torch.tensor([0.0, 0.0, tokens * norm_b**2, tokens], dtype=torch.float64),
        }
        if norm_a == 4.0:
            assert guidance.weights() == {"kd/a": 1.0, "kd/b": 1.0}
        guidance.on_step_end(None, State, None)
    # a: mean 3, mean square 10, spread 1/3; b: mean 3.25, mean square 10.625, spread 0.25 / 3.25 = 1/13
    mean = (1 / 3 + 1 / 13) / 2
    assert guidance.weights() == pytest.approx({"kd/a": 3 * mean, "kd/b": 13 * mean})
    State.global_step = 2  # step 1 was not measured
    guidance.on_step_end(None, State, None)
    assert guidance.averages["kd/a"] == pytest.approx([3.0, 10.0, 2.0])


def test_a_run_guided_by_variance_trains(tmp_path):
    trainer = make_distiller(tmp_path, **GUIDED | {"num_steps": 4, "guided__by": "variance", "guided__memory": 0.7})
    trainer.train()
    weights = trainer.guidance.weights()
    assert len(set(weights.values())) == 2
    assert all(0.5 <= weight <= 2 for weight in weights.values())
