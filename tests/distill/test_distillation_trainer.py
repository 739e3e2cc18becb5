"""The distillation trainer: its gradient is that of the loss written out, and a run repeats and resumes exactly."""

import json

import pytest
import torch

from rl_distill.config import ConfigError
from rl_distill.distill.heldout import heldout_metrics
from rl_distill.distill.stage import wrap_student
from rl_distill.distill.trainer import DistillationTrainer
from tests.distill_case import make_case, make_config, make_distiller


def written_out_loss(student, teacher, examples, alpha, temperature):
    """alpha CE + (1 - alpha) T^2 KL(teacher || student), row by row, from whole logits; means over all tokens."""
    cross_entropy, kl, count = 0.0, 0.0, 0
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.completion_ids])
        first, targets = len(example.prompt_ids) - 1, torch.tensor(example.completion_ids)
        logits = student(ids).logits[0, first:-1]
        with torch.no_grad():
            teacher_logits = teacher.model(ids).logits[0, first:-1]
        cross_entropy += torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        kl += torch.nn.functional.kl_div(
            (logits / temperature).log_softmax(-1), (teacher_logits / temperature).softmax(-1), reduction="sum"
        )
        count += len(targets)
    return (alpha * cross_entropy + (1 - alpha) * temperature**2 * kl) / count


def one_step(tmp_path, **settings):
    """(the trainer after one step of plain gradient descent, how each weight moved)."""
    trainer = make_distiller(tmp_path, num_steps=1, optimizer="adamw", max_grad_norm=1e9, **settings)
    start = {name: p.detach().clone() for name, p in trainer.student.policy.named_parameters()}
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=1.0)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda _: 1.0)
    trainer.train()
    return trainer, {name: start[name] - p.detach() for name, p in trainer.student.policy.named_parameters()}


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_a_step_descends_the_loss_written_out_however_it_is_split(tmp_path, micro_batch_size):
    trainer, moved = one_step(tmp_path, alpha__start=0.25, temperature__start=2.0, micro_batch_size=micro_batch_size)
    student, teacher, _, examples = make_case(trainer.config)
    rows = [examples[row.example] for row in trainer.order.rows(0)]
    written_out_loss(student, teacher, rows, 0.25, 2.0).backward()
    for name, parameter in student.named_parameters():
        assert torch.allclose(moved[name], parameter.grad, atol=2e-6), name


def test_a_student_equal_to_its_teacher_does_not_move_without_the_task_term(tmp_path):
    config = make_config(tmp_path, alpha__start=0.0, inner__hidden_map="uniform", inner__attention_map="uniform")
    _, teacher, tokenizer, examples = make_case(config)
    _, twin, *_ = make_case(config)
    for parameter in twin.model.parameters():
        parameter.requires_grad_(True)
    student = wrap_student(config.distill, twin.model, teacher, len(tokenizer))
    trainer = DistillationTrainer(student, config, config.distill, examples, teacher, tokenizer, tmp_path)
    start = [p.detach().clone() for p in twin.model.parameters()]
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=1.0)
    trainer.train()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(start, twin.model.parameters()))


@pytest.mark.parametrize(
    "settings",
    [
        {"divergence": "jsd", "beta": 0.3},
        {"divergence": "reverse_kl", "on_policy__start": 1.0},
        {"divergence": "tvd", "on_policy__start": 0.5, "interpolation__start": 0.1, "interpolation__end": 1.0},
        {"inner__hidden_map": {0: 1, 1: 3}, "inner__hidden_loss": "cosine", "inner__embedding_coef": 0.1},
        {"inner__attention_map": "last", "temperature__start": 2.0, "temperature__end": 0.5},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_every_loss_brings_the_student_nearer_to_its_teacher(tmp_path, settings):
    trainer = make_distiller(tmp_path, num_steps=30, alpha__start=0.0, learning_rate=3e-3, **settings)

    def forward_kl():
        teacher, examples = trainer.teacher, trainer.examples
        return heldout_metrics(trainer.student.policy, teacher, examples, pad_token_id=0)["forward_kl"]

    before = forward_kl()
    trainer.train()
    assert forward_kl() < 0.9 * before
    records = [record for record in trainer.state.log_history if "loss" in record]
    assert records
    assert all("loss/kd" in record and "schedule/temperature" in record for record in records)


def test_the_logged_ratio_of_kd_to_task_is_the_effective_one(tmp_path):
    trainer = make_distiller(tmp_path, num_steps=10, alpha__start=0.25, temperature__start=0.5)
    trainer.train()
    record = next(record for record in trainer.state.log_history if "loss" in record)
    expected = 0.75 * 0.25 * record["divergence"] / (0.25 * record["nll"])  # T^2 = 0.25
    assert record["ratio/kd_to_task"] == pytest.approx(expected, rel=1e-4)


def test_a_resumed_stage_is_the_uninterrupted_one_to_the_last_bit(tmp_path):
    settings = {"num_steps": 6, "on_policy__start": 0.5, "temperature__start": 2.0, "temperature__end": 0.5}

    def run(folder, resume=None, stop_at=None):
        trainer = make_distiller(folder, **settings)
        trainer.args.save_steps = 3
        if stop_at is not None:
            trainer.args.max_steps = 6
            trainer.add_callback(StopAt(stop_at))
        trainer.train(resume_from_checkpoint=resume)
        return {name: p.detach().clone() for name, p in trainer.student.named_parameters()}

    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", stop_at=3)
    resumed = run(tmp_path / "cut", resume=str(tmp_path / "cut" / "checkpoint-3"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


from transformers import TrainerCallback  # noqa: E402


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.step:
            control.should_training_stop = True


def test_projections_are_trained_and_not_exported(tmp_path):
    trainer = make_distiller(tmp_path, inner__hidden_map="uniform")
    start = {name: p.detach().clone() for name, p in trainer.student.projections.named_parameters()}
    assert {tuple(p.shape) for p in start.values()} == {(48, 32)}
    trainer.train()
    assert all(not torch.equal(start[name], p) for name, p in trainer.student.projections.named_parameters())
    trainer.student.policy.save_pretrained(tmp_path / "student")
    from safetensors.torch import load_file

    assert not [name for name in load_file(tmp_path / "student" / "model.safetensors") if "projection" in name]
    assert json.loads((tmp_path / "student" / "config.json").read_text())["model_type"] == "qwen2"


def test_soft_targets_are_computed_in_float32_under_autocast():
    from rl_distill.maths.distillation import distillation_statistics, make_divergence

    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(40, 16) * 3, torch.randn(60, 16), torch.randint(60, (40,))
    teacher = {"teacher_hidden_NE": hidden + 0.01 * torch.randn_like(hidden), "teacher_weight_VE": weight}
    plain = distillation_statistics(hidden, weight, targets, make_divergence("forward_kl"), **teacher)
    with torch.autocast("cpu", torch.bfloat16):
        found = distillation_statistics(hidden, weight, targets, make_divergence("forward_kl"), **teacher)
    assert torch.equal(found.divergence_N, plain.divergence_N)


def test_dropout_of_the_student_is_off(tmp_path):
    config = make_config(tmp_path)
    student, *_ = make_case(config)
    student.config.attention_dropout = 0.5
    for layer in student.model.layers:
        layer.self_attn.attention_dropout = 0.5
    wrap_student(config.distill, student, None, 320)
    assert all(layer.self_attn.attention_dropout == 0 for layer in student.model.layers)


def test_a_decoder_without_layers_distils_and_is_refused_only_where_layers_are_read(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = make_config(tmp_path, num_steps=2)
    _, teacher, tokenizer, examples = make_case(config)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=256))
    student = wrap_student(config.distill, gpt2, teacher, len(tokenizer))
    trainer = DistillationTrainer(student, config, config.distill, examples, teacher, tokenizer, tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2
    inner = make_config(tmp_path, inner__hidden_map="last")
    with pytest.raises(ConfigError, match=r"the student \(gpt2\) has no list of layers"):
        wrap_student(inner.distill, gpt2, teacher, len(tokenizer))


def test_logged_parts_add_up_to_the_loss_also_after_a_resume(tmp_path):
    def last_record(folder, resume=None, stop_at=None):
        trainer = make_distiller(folder, num_steps=20)
        trainer.args.save_steps = 5
        if stop_at is not None:
            trainer.add_callback(StopAt(stop_at))
        trainer.train(resume_from_checkpoint=resume)
        return [record for record in trainer.state.log_history if "loss" in record]

    last_record(tmp_path, stop_at=5)
    records = last_record(tmp_path, resume=str(tmp_path / "checkpoint-5"))
    for record in records[1:]:
        assert record["loss/task"] + record["loss/kd"] == pytest.approx(record["loss"], rel=1e-3)


def test_heldout_numbers_leave_out_padding_of_the_vocabulary_and_what_is_not_known(tmp_path):
    config = make_config(tmp_path)
    student, teacher, tokenizer, examples = make_case(config)
    plain = heldout_metrics(student, teacher, examples, pad_token_id=0, num_tokens_vocab=len(tokenizer))
    student.resize_token_embeddings(len(tokenizer) + 64)
    torch.nn.init.zeros_(student.get_output_embeddings().weight.data[len(tokenizer) :])
    padded = heldout_metrics(student, teacher, examples, pad_token_id=0, num_tokens_vocab=len(tokenizer))
    assert padded == pytest.approx(plain, rel=1e-5)

    class Ensemble:
        lm_head_weight_VE = (teacher.lm_head_weight_VE, teacher.lm_head_weight_VE)

    found = heldout_metrics(student, Ensemble(), examples, pad_token_id=0, num_tokens_vocab=len(tokenizer))
    assert set(found) == {"nll", "perplexity"}
