"""The student under FSDP2 equals one process: real `accelerate launch` over gloo, in float32 but for one test."""

import os
import shutil

import pytest

from rl_distill import distributed
from rl_distill.config import ConfigError, load_config
from rl_distill.files import read_jsonl
from rl_distill.models.actor_critic import ActorCritic, make_critic
from rl_distill.ppo import checkpoint
from rl_distill.ppo.hf_arguments import check_launch
from tests import killable, launched, own_models
from tests.distributed.test_deepspeed import SETTINGS, assert_same_student
from tests.ppo.test_two_processes import COMPARED, assert_same_metrics

NAMES = {*COMPARED, "grad_norm_critic", "policy/ratio", "value/error"}
CLIPPED = SETTINGS | {"ppo__max_grad_norm": 0.05}
LAUNCH = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    killable.finish(folder, **launched.OPTIONS | CLIPPED)
    return folder


@pytest.fixture(scope="module")
def two(one):
    folder = one.with_name("two")
    return folder, launched.finish("fsdp2", 2, folder, **CLIPPED)


@pytest.mark.slow
def test_two_processes_under_fsdp_train_like_one(two, one):
    folder, printed = two
    assert printed.count("report: ") == 1
    assert (folder / "checkpoint-8" / "pytorch_model_fsdp.bin").is_file()  # not DDP
    assert_same_metrics(folder, one, NAMES)
    records = read_jsonl(one / "metrics.jsonl")
    assert len({record["loss/value"] for record in records if "loss/value" in record}) > 2
    assert max(record.get("grad_norm", 0.0) for record in records) > CLIPPED["ppo__max_grad_norm"]
    assert [checkpoint.is_complete(path) for path in checkpoint.folders(folder)] == [True, True]
    assert_same_student(folder, one)


@pytest.mark.slow
def test_a_run_under_fsdp_resumes_exactly(two):
    folder, _ = two
    again = folder.with_name("again")
    shutil.copytree(folder, again)
    shutil.rmtree(again / "checkpoint-8")
    launched.finish("fsdp2", 2, again, **CLIPPED, resume_from_checkpoint="latest")
    for name in ("metrics.jsonl", "student/model.safetensors", "checkpoint-8/model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = own_models.write(tmp_path_factory.mktemp("models"))
    student = AutoModelForCausalLM.from_pretrained(folder / "student")
    student.config.tie_word_embeddings = False
    untied = type(student)(student.config)
    untied.load_state_dict(student.state_dict())
    untied.save_pretrained(folder / "untied")
    AutoTokenizer.from_pretrained(folder / "student").save_pretrained(folder / "untied")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"ppo__batch_size": 10, "ppo__num_epochs": 2, "ppo__entropy_coef": 0.1, "ppo__critic": "shared"},
        {"ppo__critic": "separate", "student__gradient_checkpointing": True},
        {"student__model": "untied"},
    ],
    ids=["minibatches of five", "separate critic", "untied head"],
)
def test_rows_critics_and_heads_of_every_kind_train_as_in_one_process(changes, folder, tmp_path):
    if "student__model" in changes:
        changes = changes | {"student__model": folder / changes["student__model"]}
    settings = own_models.options(folder, teacher__model=folder / "large", generation__batch_size=2) | changes
    killable.finish(tmp_path / "one", **launched.OPTIONS | settings)
    launched.finish("fsdp2", 2, tmp_path / "two", **settings)
    assert_same_metrics(tmp_path / "two", tmp_path / "one", NAMES)
    assert_same_student(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_bf16_under_fsdp_is_close_to_bf16_under_ddp(folder, tmp_path):
    settings = own_models.options(folder, teacher__model=folder / "large", ppo__bf16=True)
    runs = [tmp_path / "fsdp2", tmp_path / "ddp"]
    for run in runs:
        launched.finish(run.name, 2, run, **settings)
    found, wanted = (read_jsonl(run / "metrics.jsonl") for run in runs)
    for ours, theirs in zip(found, wanted, strict=True):
        for name in {"kl", "loss", "entropy", "policy/ratio"} & set(theirs):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-3), name


def test_accelerate_finds_the_layers_that_it_shards_one_by_one(make_policy):
    policy = make_policy()
    model = ActorCritic(policy, make_critic("separate", policy, 24))
    assert type(policy.model.layers[0]).__name__ in model._no_split_modules
    assert model.get_input_embeddings() is model.get_output_embeddings() is None


@pytest.mark.parametrize(
    ("name", "value"), [("FSDP_VERSION", "1"), ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true"), ("FSDP_VERSION", None)]
)
def test_an_fsdp_that_cannot_train_is_refused(name, value, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ) | LAUNCH)
    monkeypatch.delenv(name)
    if value is not None:
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=rf"{name.lower()}: \w+ \(it is {value or 'unset'}\).*fsdp2\.yaml"):
        distributed.start()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"student.lora": {}}, "student.lora"),
        ({"generation.engine": "vllm_colocate"}, "generation.engine"),
    ],
)
def test_what_fsdp_lacks_is_refused_before_anything_is_loaded(settings, name, monkeypatch):
    config = load_config(None, settings)
    check_launch(config)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=f"{name}.* cannot be had under FSDP"):
        check_launch(config)
