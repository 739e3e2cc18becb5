"""A teacher's folder to a student's folder: what is written, what the card says, what is refused."""

from __future__ import annotations

import argparse
import json
import math
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config

from rl_distill.config import ConfigError
from rl_distill.demo.problems import make_problems
from rl_distill.errors import USER_ERROR, UserError, in_one_line
from rl_distill.students import Calibration, Row, StudentShapeConfig, init_student, parse_student_arch, read_rows
from rl_distill.students.command import add_arguments

from .models import logits

PROBLEMS = make_problems("train", 60, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """teacher/ with its tokenizer, and rollouts.jsonl of prompts with completions, every third one wrong."""
    from rl_distill.demo.tiny import make_tokenizer

    path = tmp_path_factory.mktemp("models")
    tokenizer = make_tokenizer([p.prompt + p.solution for p in make_problems("train", 300, 1)], 400)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 3,  # padding rows, as Qwen's embeddings have
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_((1.0 if "norm" in key else 0.0) + 0.2 * torch.randn_like(parameter))
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, 7], pad_token_id=0)
    model.save_pretrained(path / "teacher")
    tokenizer.save_pretrained(path / "teacher")
    rows = [
        {"prompt": p.prompt, "completion": p.solution, "task_check": float(place % 3 > 0)}
        for place, p in enumerate(PROBLEMS)
    ]
    (path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def calibration(folder):
    return Calibration.of(read_rows(folder / "rollouts.jsonl", "task_check"), max_tokens=600, search_tokens=200)


def loaded(path):
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


@torch.no_grad()
def nlls_by_hand(model, tokenizer, rows):
    """The model's log-probability of every completion token, one row at a time, in float64."""
    found = []
    for row in rows:
        prompt, ids = tokenizer(row.prompt)["input_ids"], tokenizer(row.text)["input_ids"]
        logp = model(torch.tensor([prompt + ids])).logits[0].double().log_softmax(-1)
        found += [-float(logp[len(prompt) + place - 1, token]) for place, token in enumerate(ids)]
    return found


def test_keeping_everything_gives_the_teachers_bits(folder, tmp_path):
    card = init_student(folder / "teacher", tmp_path / "copy", StudentShapeConfig(), calibration(folder))
    (teacher, tokenizer), (student, copied) = loaded(folder / "teacher"), loaded(tmp_path / "copy")
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert copied.get_vocab() == tokenizer.get_vocab()
    assert student.generation_config.eos_token_id == [tokenizer.eos_token_id, 7]
    found = card.cost.comparison
    assert (found.kl, found.top1_agreement, found.teacher_mass_kept) == (0.0, 1.0, 1.0)
    assert found.teacher_nll == found.student_nll
    assert card.teacher_size == card.student_size
    full = init_student(
        folder / "teacher",
        tmp_path / "full",
        StudentShapeConfig(layers="block_influence:100%", heads="100%", ffn="1.0", hidden="100%"),
        calibration(folder),
    )
    student = loaded(tmp_path / "full")[0].state_dict()
    assert all(torch.equal(student[key], theirs[key]) for key in theirs)
    assert full.warnings == ()


def test_the_card_says_what_the_folder_holds(folder, tmp_path):
    shape = StudentShapeConfig(layers="0,2,3", heads="1", ffn="0.5")
    texts = calibration(folder)
    card = init_student(folder / "teacher", tmp_path / "student", shape, texts, command="the command")
    (teacher, tokenizer), (student, _) = loaded(folder / "teacher"), loaded(tmp_path / "student")
    assert student.config.num_hidden_layers == 3
    assert (student.config.num_attention_heads, student.config.num_key_value_heads) == (2, 1)
    assert (student.config.intermediate_size, student.config.head_dim) == (32, 8)
    assert card.student_size.parameters == sum(p.numel() for p in student.parameters())
    assert card.student_size.bytes == 4 * card.student_size.parameters
    assert card.teacher_size.parameters == sum(p.numel() for p in teacher.parameters())

    used, total = [], 0
    for row in texts.held_out:
        total += len(tokenizer(row.prompt)["input_ids"]) + len(tokenizer(row.text)["input_ids"])
        if total > 600:
            break
        used.append(row)
    found = card.cost.comparison
    teacher_nlls, student_nlls = (nlls_by_hand(m, tokenizer, used) for m in (teacher, student))
    assert found.num_tokens == len(teacher_nlls) > 50
    assert found.teacher_nll == pytest.approx(sum(teacher_nlls) / len(teacher_nlls), rel=1e-5)
    assert found.student_nll == pytest.approx(sum(student_nlls) / len(student_nlls), rel=1e-5)
    assert found.student_perplexity == pytest.approx(math.exp(sum(student_nlls) / len(student_nlls)), rel=1e-4)
    num_bytes = sum(len(row.text.encode()) for row in used)
    assert card.cost.student_bits_per_byte == pytest.approx(sum(student_nlls) / math.log(2) / num_bytes, rel=1e-5)
    kls, same = [], []
    for row in used:
        ids = tokenizer(row.prompt)["input_ids"] + tokenizer(row.text)["input_ids"]
        start = len(tokenizer(row.prompt)["input_ids"]) - 1
        logq, logp = (logits(m, torch.tensor([ids]))[0, start:-1].double().log_softmax(-1) for m in (teacher, student))
        kls += (logq.exp() * (logq - logp)).sum(-1).tolist()
        same += (logq.argmax(-1) == logp.argmax(-1)).tolist()
    assert found.kl == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert found.top1_agreement == pytest.approx(sum(same) / len(same))

    saved = json.loads((tmp_path / "student" / "student.json").read_text())
    assert saved["layers"] == [0, 2, 3]
    assert saved["cost"]["comparison"]["kl"] == found.kl
    assert saved["shape"] == {"layers": "0,2,3", "heads": "1", "ffn": "0.5", "hidden": None, "vocab": None}
    readme = (tmp_path / "student" / "README.md").read_text()
    assert "0, 2, 3" in readme
    assert "the command" in readme
    assert f"{found.student_perplexity:.2f}" in readme
    assert not list(tmp_path.glob("*.tmp"))


def test_importance_is_measured_on_the_completions_of_verified_rollouts(folder, tmp_path):
    """Channels that matter in wrong answers and prompts alone must not be the ones kept: other rows, other channels."""
    shape = StudentShapeConfig(ffn="0.25")
    cards = {}
    for name, rows in (
        ("verified", read_rows(folder / "rollouts.jsonl", "task_check")),
        ("plain", [Row(p.prompt) for p in PROBLEMS]),
    ):
        texts = Calibration(rows, rows[:5])
        cards[name] = init_student(folder / "teacher", tmp_path / name, shape, texts)
    first, second = (loaded(tmp_path / name)[0].state_dict() for name in cards)
    key = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first[key], second[key])
    num_scored = sum(
        len(AutoTokenizer.from_pretrained(folder / "teacher")(p.solution)["input_ids"])
        for place, p in enumerate(PROBLEMS)
        if place % 3 > 0
    )
    assert cards["verified"].num_calibration_tokens == num_scored


def test_a_cut_vocabulary_keeps_pieces_logits_and_special_tokens(folder, tmp_path):
    corpus = [{"text": p.prompt + p.solution} for p in PROBLEMS[:12]]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    shape = StudentShapeConfig(vocab=str(tmp_path / "corpus.jsonl"))
    card = init_student(folder / "teacher", tmp_path / "student", shape, calibration(folder))
    (teacher, whole), (student, cut) = loaded(folder / "teacher"), loaded(tmp_path / "student")
    assert len(cut) == student.config.vocab_size == card.after.vocab_size < len(whole)
    old = torch.tensor([whole.get_vocab()[name] for name, _ in sorted(cut.get_vocab().items(), key=lambda x: x[1])])
    for row in corpus:
        assert cut.tokenize(row["text"]) == whole.tokenize(row["text"])
        ids = torch.tensor([cut(row["text"])["input_ids"]])
        assert torch.equal(old[ids][0], torch.tensor(whole(row["text"])["input_ids"]))
        assert torch.equal(logits(student, ids), logits(teacher, old[ids])[..., old])
    assert cut.decode([student.config.eos_token_id]) == whole.eos_token
    assert old[torch.tensor(student.generation_config.eos_token_id)].tolist() == [whole.eos_token_id, 7]
    assert student.lm_head.weight is student.model.embed_tokens.weight

    found = card.cost.comparison
    assert 0 < found.teacher_mass_kept < 1
    assert found.kl == pytest.approx(0, abs=1e-6)  # the teacher's distribution over the kept tokens, exactly
    assert found.top1_agreement < 1 or found.teacher_mass_kept < 1
    assert card.cost.teacher_bits_per_byte is not None
    # with a share of the mass gone to other tokens, what is left gains -log(mass) per token on the same tokens
    assert found.student_nll < found.teacher_nll


def test_two_cuts_by_one_corpus_have_one_tokenizer(folder, tmp_path):
    """So a teacher cut to the same corpus can anchor the student exactly."""
    from rl_distill.models.tokenizers import check_same_tokenizer

    (tmp_path / "corpus.txt").write_text("Tom has 3 pens and 4 cups.")
    for name, layers in (("teacher", None), ("student", "50%")):
        shape = StudentShapeConfig(layers=layers, vocab=str(tmp_path / "corpus.txt"))
        init_student(folder / "teacher", tmp_path / name, shape)
    (_, first), (student, second) = loaded(tmp_path / "teacher"), loaded(tmp_path / "student")
    check_same_tokenizer(second, first)
    assert student.config.num_hidden_layers == 2


def test_without_calibration_nothing_is_measured_and_it_says_so(folder, tmp_path):
    shape = parse_student_arch("teacher:50%")
    card = init_student(folder / "teacher", tmp_path / "student", shape)
    assert card.cost is None
    assert card.layers == (0, 3)
    assert "Not measured" in (tmp_path / "student" / "README.md").read_text()
    with pytest.raises(ConfigError, match="heads, ffn: the criterion measures activations: give --calibration"):
        init_student(folder / "teacher", tmp_path / "other", StudentShapeConfig(heads="1", ffn="0.5"))


def test_a_loaded_model_will_do_and_bfloat16_stays_bfloat16(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    shape = StudentShapeConfig(layers="cosine:3")
    card = init_student(model, tmp_path / "student", shape, calibration(folder), tokenizer=tokenizer)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").dtype == torch.bfloat16
    assert card.student_size.bytes == 2 * card.student_size.parameters
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        init_student(model, tmp_path / "other", shape, calibration(folder))


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        init_student(folder / "teacher", tmp_path / "full", StudentShapeConfig(layers="50%"))
    rows = [Row(ids=(5, 6, 7), mask=(True, True, True))] * 4
    (tmp_path / "corpus.txt").write_text("Tom")
    shape = StudentShapeConfig(vocab=str(tmp_path / "corpus.txt"))
    with pytest.raises(ConfigError, match="rows of token ids"):
        init_student(folder / "teacher", tmp_path / "student", shape, Calibration.of(rows))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "full"]


def run(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    return args.run(args)


def test_the_command_writes_a_student_and_prints_its_card(folder, tmp_path, capsys):
    options = ("--layers", "learned:3", "--calibration", folder / "rollouts.jsonl", "--verified", "task_check")
    limits = ("--max_tokens", 400, "--search_tokens", 150)
    assert run("--teacher", folder / "teacher", "--out", tmp_path / "student", *options, *limits) == 0
    said = capsys.readouterr().out
    assert "4 -> 3" in said
    assert said.rstrip().endswith(str(tmp_path / "student"))
    assert len(loaded(tmp_path / "student")[0].model.layers) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "22"), "uniform:22"),
        (("--layers", "block_influence:2"), "give --calibration"),
        (("--layers", "50%", "--held_out", "x.jsonl"), "need --calibration"),
        (("--layers", "50%", "--calibration", "absent.jsonl"), "does not exist"),
        (("--teacher", "/absent/model", "--layers", "50%"), "/absent/model"),
    ],
)
def test_wrong_settings_are_one_line_and_status_two(folder, tmp_path, options, message):
    with pytest.raises(UserError, match=re.escape(message)) as told:
        run("--teacher", folder / "teacher", "--out", tmp_path / "student", *options)
    assert "\n" not in str(told.value)
    assert in_one_line(told.value) == (str(told.value), USER_ERROR)
    assert not (tmp_path / "student").exists()
