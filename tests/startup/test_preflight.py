"""Each mistake ends a run before its first model is loaded, in a line that says what, where and what to do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from rl_distill import run_setup
from rl_distill.config import ConfigError
from rl_distill.data.sources import read_rows
from rl_distill.models.loading import load
from rl_distill.progress import Stages
from rl_distill.startup import files, preflight
from rl_distill.startup.findings import Finding, StartError, stop_where_bad
from tests import own_models

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return own_models.write(tmp_path / "models")


def config(folder, **changes):
    return own_models.config(folder, folder.parent / "run", **{"teacher__model": str(folder / "large")} | changes)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def rows(folder, *added):
    with (folder / "train.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in added)


def gpt2(folder):
    """The student as a GPT-2 with 64 learned positions."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape, **ids)).save_pretrained(folder / "student")


def without_eos(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder / "student")


def without_tokenizer(folder):
    for file in (folder / "student").glob("*token*"):
        file.unlink()


def as_text(folder):
    (folder / "train.jsonl").rename(folder / "train.txt")


def as_utf16(folder):
    file = folder / "train.jsonl"
    file.write_text(file.read_text(), encoding="utf-16")


def small_embedding(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    model.resize_token_embeddings(300)
    model.save_pretrained(folder / "student")


def torn(folder):
    file = folder / "student" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def reward(folder):
    (folder / "mine.py").write_text("def mine(completions, gold, **columns):\n    return [1.0 for _ in completions]\n")
    (folder / "raises.py").write_text("def mine(completions, **columns):\n    return [1 / 0 for _ in completions]\n")
    (folder / "none.py").write_text("def mine(completions, **columns):\n    return [None for _ in completions]\n")


def nothing(folder):
    """No change to the files."""


MISTAKES = [
    (torn, {}, r"student: the weight file .*student/model.safetensors is torn .*; copy or download it again"),
    (lambda f: (f / "student" / "model.safetensors").unlink(), {}, r"student: '.*student' holds no weights; copy its"),
    (nothing, {"student__model": "no/where"}, r"student: 'no/where' cannot be loaded: there is no such folder here"),
    (without_eos, {}, r"student: its tokenizer has no EOS, so no answer could end; set .eos_token."),
    (small_embedding, {}, r"student: it has 300 embedding rows but its tokenizer uses id 319; call resize_token_emb"),
    (
        lambda f: edit_json(f / "student" / "config.json", model_type="granite"),
        {},
        "student: Granite is not supported: it divides its logits after the head",
    ),
    (
        gpt2,
        {},
        r"student: it has 64 positions; the longest prompt of data.train has \d+ tokens and a completion may have \d+",
    ),
    (
        nothing,
        {"generation__max_completion_length": 500},
        r"student: it has 512 positions.*; lower generation.max_completion_length, or set data.max_prompt_length to 12",
    ),
    (
        nothing,
        {"student__lora": {"target_modules": ["query"]}},
        r"student.lora.target_modules: 'query' is no module of the student; there are: down_proj, gate_proj, k_proj",
    ),
    (nothing, {"report_to": ["wandb"]}, r"report_to: the package of 'wandb' is not installed; pip install wandb"),
    (nothing, {"report_to": ["tensorbord"]}, r"report_to: 'tensorbord' is not known; there are: .*tensorboard"),
    (nothing, {"cache_dir": "/proc/nowhere"}, r"cache_dir: '/proc/nowhere' cannot be written"),
    (
        reward,
        {"rewards": [{"fn": "MODELS/mine.py:mine"}]},
        r"rewards: mine needs the column 'gold'; the data has answer, .*: rename one or leave it out",
    ),
    (
        reward,
        {"rewards": [{"fn": "MODELS/raises.py:mine", "on_error": "skip"}]},
        "a first batch of 8 .*ZeroDivisionError",
    ),
    (
        reward,
        {"rewards": [{"fn": "MODELS/none.py:mine"}]},
        "none of mine scores any of the first 8 problems; give the data",
    ),
    (
        nothing,
        {"rewards": [{"fn": "bleu"}]},
        "bleu needs the column 'teacher_output'; set teacher.num_outputs_per_prompt",
    ),
    (lambda f: rows(f, {"prompt": ""}), {}, r"data.train: 1 of 41 rows .*train.jsonl line 41: the prompt is empty"),
    (nothing, {"data__train": "nowhere.jsonl"}, r"data.train: file 'nowhere.jsonl' does not exist"),
    (nothing, {"data__chat": True}, "data.chat: the tokenizer has no chat template"),
    (
        nothing,
        {"generation__max_completion_length": 5000},
        r"together 50\d\d; lower generation.max_completion_length below 512$",
    ),
    (without_tokenizer, {}, r"student: '.*student' holds no tokenizer; copy the tokenizer files"),
    (
        lambda f: edit_json(f / "student" / "config.json", num_hidden_layers=5),
        {},
        r"student: '.*student' cannot be loaded \(Strict.*layer_types",
    ),
    (nothing, {"data__prompt_template": "Solve it:"}, "data.prompt_template: 'Solve it:' names no column"),
    (
        as_text,
        {"data__train": "MODELS/train.txt"},
        r"train.txt' has none of the endings .jsonl, .*; convert it, or rename",
    ),
    (as_utf16, {}, r"train.jsonl is not UTF-8 \(.*; save it again in UTF-8"),
    (
        lambda f: (f / "mine.py").write_text("import sys\n\n\ndef mine(completions, **columns):\n    sys.exit(3)\n"),
        {"rewards": [{"fn": "MODELS/mine.py:mine"}]},
        "a first batch of 8 .* raised SystemExit: 3 on item 0",
    ),
]


@pytest.mark.parametrize(("change", "settings", "message"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_a_mistake_is_told_before_any_model_is_loaded(folder, change, settings, message, monkeypatch):
    change(folder)
    settings = json.loads(json.dumps(settings).replace("MODELS", str(folder)))
    monkeypatch.setattr("rl_distill.run_setup.load_model", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(StartError, match=message) as told:
        run_setup.prepare(config(folder, **settings), Stages(quiet=True))
    assert "\n" not in str(told.value)


def test_several_findings_are_told_together(folder):
    settings = {"generation__max_completion_length": 500, "report_to": ["wandb"], "rewards": [{"fn": "bleu"}]}
    with pytest.raises(StartError) as told:
        preflight.check_own(config(folder, **settings | {"report_to": []}))
    first, *others = str(told.value).split("\n  - ")
    assert first == f"{len(others)} things stand in the way of this run:"
    assert any("positions" in line for line in others)
    assert any("teacher_output" in line for line in others)


def test_a_run_without_mistakes_starts(folder):
    looked = preflight.check_own(config(folder))
    assert len(looked.splits.train) == 38


def test_wrong_gold_answers_are_a_warning_or_stop_the_run(folder, capsys):
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    maths = [line for line in lines if line["task"] == "math"]
    rewards = [{"fn": "math_answer"}]

    def write(answers):
        for line, answer in zip(maths, answers, strict=True):
            line["solution"] = answer
        (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in maths))

    write(["I do not know"] * len(maths))
    with pytest.raises(StartError, match="math_answer takes 8 of 8 gold answers for wrong; the first: 'I do not know'"):
        preflight.check_own(config(folder, rewards=rewards))
    write([line["answer"] if number % 2 else "no idea" for number, line in enumerate(maths)])
    preflight.check_own(config(folder, rewards=rewards))
    assert "warning: rewards: math_answer takes" in capsys.readouterr().err


def test_gold_answers_that_cannot_be_read_are_counted_and_told(folder, capsys):
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    maths = [line for line in lines if line["task"] == "math"]

    def write(num_prose):
        for number, line in enumerate(maths):
            if number >= len(maths) - num_prose:
                line["answer"] = "She has a few apples more than he had before\nand that is all we know"
        (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in maths))

    rewards = [{"fn": "task_check"}]
    write(2)
    preflight.check_own(config(folder, rewards=rewards))
    num_train = len(preflight.check_own(config(folder, rewards=rewards)).splits.train)
    told = capsys.readouterr().err
    assert f"of {num_train} gold answers cannot be read as an answer; the first, of " in told
    write(len(maths))
    with pytest.raises(StartError, match=f"{num_train} of {num_train} gold answers cannot be read"):
        preflight.check_own(config(folder, rewards=rewards))


def test_a_missing_head_is_refused(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder / "student")
    edit_weights(folder / "student", lambda w: w.pop("lm_head.weight", None))
    with pytest.raises(
        ConfigError, match=r"student .*: 1 weights are not in the checkpoint .*, such as lm_head.weight"
    ):
        run_setup.prepare(config(folder), Stages(quiet=True))


def test_weights_of_another_shape_are_named_with_both_shapes(folder):
    edit_json(folder / "student" / "config.json", hidden_size=48)
    with pytest.raises(
        ConfigError,
        match=r"weights have another shape .*, such as model.embed_tokens.weight: \(320, 32\) against \(320, 48\)",
    ):
        run_setup.prepare(config(folder), Stages(quiet=True))


def test_a_byte_order_mark_before_the_first_row_is_no_part_of_it(folder):
    file = folder / "train.jsonl"
    first = json.loads(file.read_text().splitlines()[0])
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert read_rows(str(file), "train")[0].columns == first


def test_a_weight_that_is_nan_is_named(folder):
    edit_weights(folder / "large", lambda w: w["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(ConfigError, match=r"teacher .*large: the weight model.norm.weight holds NaN or infinity"):
        run_setup.prepare(config(folder), Stages(quiet=True))


def test_a_base_student_under_an_instruct_teacher_ends_at_either(folder, capsys):
    """They share the vocabulary; the teacher ends its turns with another token, and has the chat template."""
    teacher = AutoTokenizer.from_pretrained(folder / "large")
    teacher.eos_token = "<|pad|>"
    teacher.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    teacher.save_pretrained(folder / "large")
    context = run_setup.prepare(config(folder, data__chat=True), Stages(quiet=True))
    ours = context.tokenizer.eos_token_id
    assert context.student.generation_config.eos_token_id == sorted({ours, teacher.eos_token_id})
    assert context.tokenizer.chat_template == teacher.chat_template
    assert (
        "it ends texts with '<|pad|>', the student with '<|endoftext|>'; answers end at either"
        in capsys.readouterr().err
    )


def test_ids_with_a_hole_are_all_kept(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    file = json.loads((folder / "student" / "tokenizer.json").read_text())
    token, number = max(file["model"]["vocab"].items(), key=lambda item: item[1])
    file["model"]["vocab"][token] = number + 5
    (folder / "student" / "tokenizer.json").write_text(json.dumps(file))
    from rl_distill.models.tokenizers import num_token_ids

    holey = AutoTokenizer.from_pretrained(folder / "student")
    assert (len(holey), num_token_ids(holey)) == (len(tokenizer), number + 6)


def test_two_runs_in_one_folder_are_told(tmp_path):
    script = "import sys, pathlib\nfrom rl_distill.startup import files\n"
    script += "print(files.lock_findings(pathlib.Path(sys.argv[1])))\nsys.stdout.flush()\nsys.stdin.read()\n"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "[]\n"
        (finding,) = files.lock_findings(tmp_path)
        who = f"process {first.pid} on {socket.gethostname()}"
        do = "wait for it, or set another output_dir"
        assert finding.line == f"output_dir: {str(tmp_path)!r} is in use by another run ({who}); {do}"
        first.kill()
    assert files.lock_findings(tmp_path) == []


def test_a_full_disk_is_told_before_the_run(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2 * files.GIB})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert files.space_findings(tmp_path, 0.1 * files.GIB, 2) == []
    assert files.space_findings(tmp_path, 1.0 * files.GIB, 2)[0].level == "warn"
    (bad,) = files.space_findings(tmp_path, 1.5 * files.GIB, 2)
    assert bad.level == "bad"
    assert bad.detail == f"2.0 GiB are free on the disk of {str(tmp_path)!r}; a checkpoint needs about 1.5 GiB"


def test_a_compile_lock_left_by_an_interrupted_launch_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    lock = tmp_path / "cpu_adam" / "lock"
    lock.parent.mkdir()
    lock.touch()
    assert files.compile_lock_findings() == []  # somebody may be compiling
    os.utime(lock, (0, 0))
    (finding,) = files.compile_lock_findings()
    assert f"left the compile lock {lock}" in finding.line


def test_findings_of_one_kind_stop_and_others_do_not():
    stop_where_bad([Finding("warn", "a", "b"), Finding("ok", "c", "d")])
    with pytest.raises(StartError, match=r"^a: b; do c$"):
        stop_where_bad([Finding("bad", "a", "b", "do c")] * 2)


def test_adapters_are_continued_or_merged(folder):
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(folder / "student")
    wrapped = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(folder / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = wrapped.eval()(ids).logits
    merged, tokenizer = load(folder / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(merged.eval()(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert len(tokenizer) == 320
    adapter = {"student__model": str(folder / "adapter")}
    continued = run_setup.prepare(config(folder, **adapter), Stages(quiet=True)).student
    assert {n.split(".")[-3] for n, p in continued.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    whole = run_setup.prepare(config(folder, **adapter, student__adapter="merge"), Stages(quiet=True)).student
    assert all(p.requires_grad for p in whole.parameters())
    teacher = run_setup.prepare(config(folder, teacher__model=str(folder / "adapter")), Stages(quiet=True)).teacher
    assert not hasattr(teacher.model, "peft_config")
    with pytest.raises(
        StartError, match=r"student.lora: .*adapter is an adapter already, which is trained further; leave"
    ):
        preflight.check_own(config(folder, **adapter, student__lora={"r": 2}))


def test_a_continued_adapter_trains_and_is_exported_merged(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    from rl_distill import pipeline

    base = AutoModelForCausalLM.from_pretrained(folder / "student")
    get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(
        folder / "adapter"
    )
    settings = config(folder, student__model=str(folder / "adapter"), ppo__num_steps=1, ppo__learning_rate=1e-2)
    context = run_setup.prepare(settings, Stages(quiet=True))
    trainer = pipeline.make_trainer(settings, context)
    before = {n: p.detach().clone() for n, p in context.student.named_parameters() if p.requires_grad}
    assert pipeline.train(settings, trainer)
    after = dict(context.student.named_parameters())
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    exported = AutoModelForCausalLM.from_pretrained(pipeline.export(settings, trainer, context.tokenizer))
    original = AutoModelForCausalLM.from_pretrained(folder / "student").state_dict()
    assert any(not torch.equal(value, original[name]) for name, value in exported.state_dict().items())
