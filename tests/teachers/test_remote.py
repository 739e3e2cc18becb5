"""A teacher behind HTTP says what the same model says in this process; outages are waited for, refusals are not."""

import threading
import time
from dataclasses import replace

import pytest
import torch

from rl_distill import pipeline
from rl_distill.config import ConfigError, TeacherServerConfig, load_config
from rl_distill.files import read_jsonl
from rl_distill.generation.sampling import Sampling
from rl_distill.teachers.colocated import ColocatedTeacher
from rl_distill.teachers.http_api import client as http_side
from rl_distill.teachers.http_api.client import TeacherServerError
from rl_distill.teachers.remote import RemoteTeacher, read_row
from tests.completions_server import CompletionsServer
from tests.tiny_run import make_config, make_context

PROMPTS, COMPLETIONS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]], [[20, 21], [22, 23, 24], [25]]


@pytest.fixture
def pair(make_policy, tokenizer):
    """(the server, a teacher that asks it, the same model as a shared teacher)."""
    model = make_policy(3)
    server = CompletionsServer(model, tokenizer)
    server.start()
    served = RemoteTeacher(TeacherServerConfig(base_url=server.url, num_connections=2, wait_s=60))
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    yield server, served, ColocatedTeacher(model, eos_token_ids=[eos], pad_token_id=pad)
    served.close()
    server.stop()


@pytest.mark.parametrize("top_k", [0, 5])
def test_scores_are_those_of_the_model(pair, top_k):
    _, served, shared = pair
    ours, theirs = (teacher.score(PROMPTS, COMPLETIONS, top_k=top_k) for teacher in (served, shared))
    torch.testing.assert_close(ours.logprobs_N, theirs.logprobs_N, atol=1e-5, rtol=1e-5)
    assert ours.hidden_NE.shape == (6, 0)
    if top_k:
        assert ours.top_ids_NK.tolist() == theirs.top_ids_NK.tolist()
        torch.testing.assert_close(ours.top_logprobs_NK, theirs.top_logprobs_NK, atol=1e-5, rtol=1e-5)


def test_texts_are_those_of_the_model(pair):
    _, served, shared = pair
    sampling = Sampling(6, temperature=0.0)
    assert served.generate(PROMPTS, sampling) == shared.generate(PROMPTS, sampling)


def test_an_outage_is_waited_for(pair, capfd):
    server, served, shared = pair
    server.stop()
    threading.Timer(1.5, server.start).start()
    started = time.monotonic()
    scores = served.score(PROMPTS, COMPLETIONS)
    assert time.monotonic() - started > 1.4
    torch.testing.assert_close(scores.logprobs_N, shared.score(PROMPTS, COMPLETIONS).logprobs_N, atol=1e-5, rtol=1e-5)
    printed = capfd.readouterr().err
    assert printed.count("the run waits") == printed.count("back after") == 1


def test_an_outage_has_a_limit(pair):
    server, served, _ = pair
    served.server.settings = replace(served.server.settings, wait_s=1.0)
    server.stop()
    with pytest.raises(TeacherServerError, match=r"did not answer for 1 s .*refused"):
        served.score(PROMPTS, COMPLETIONS)
    server.start()


def test_a_server_that_is_down_at_the_start_is_reported(monkeypatch):
    monkeypatch.setattr(http_side, "FIRST_CONTACT_S", 0.6)
    with pytest.raises(TeacherServerError, match=r"start it .vllm serve MODEL., or set teacher.server.base_url"):
        RemoteTeacher(TeacherServerConfig(base_url="http://127.0.0.1:9/v1"))


def test_what_the_server_refuses_is_not_asked_again(pair):
    server, served, _ = pair
    with pytest.raises(TeacherServerError, match="greater than max allowed: 20"):
        served.score(PROMPTS[:1], COMPLETIONS[:1], top_k=21)
    assert server.num_requests == 1


def test_another_model_than_the_wanted_is_refused(pair):
    with pytest.raises(TeacherServerError, match="does not serve 'big'; it has: tiny-teacher"):
        RemoteTeacher(TeacherServerConfig(base_url=pair[0].url, model="big"))


def test_a_row_is_read_by_rank_and_by_token():
    entry = {"7": {"logprob": -3.0, "rank": 9}, "4": {"logprob": -0.5, "rank": 1}, "5": {"logprob": -1.0, "rank": 2}}
    row = read_row([entry], [7], 2)
    assert (row.logprobs, row.top_ids, row.top_logprobs) == ([-3.0], [[4, 5]], [[-0.5, -1.0]])


@pytest.mark.parametrize("estimator", ["top_k", "k2"])
def test_a_run_under_a_served_teacher_is_that_under_a_shared_one(tmp_path, estimator):
    settings = {
        "anchor__estimator": estimator,
        "anchor__top_k": 8,
        "ppo__critic": "shared",
        "anchor__schedule": "fixed",
    }
    settings |= {"teacher__autocast": "off"}
    records = {}
    for place in ("shared", "served"):
        config = make_config(tmp_path / place, **settings)
        context = make_context(config)
        server = CompletionsServer(context.teacher.model, context.tokenizer)
        if place == "served":
            server.start()
            context.teacher = RemoteTeacher(TeacherServerConfig(base_url=server.url))
        pipeline.train(config, pipeline.make_trainer(config, context))
        if place == "served":
            context.teacher.close()
            server.stop()
        records[place] = [r for r in read_jsonl(tmp_path / place / "metrics.jsonl") if "loss" in r]
    for ours, theirs in zip(records["served"], records["shared"], strict=True):
        for name in ("loss", "loss/anchor", "loss/policy", "loss/value", "reward", "entropy"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"demo": None}, "base_url"),
        ({"teacher.server.base_url": "http://x/v1"}, "demo: null"),
        ({"demo": None, "teacher.server.base_url": "http://x/v1"}, "set anchor.estimator to top_k"),
    ],
)
def test_settings_that_a_server_cannot_serve_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"teacher.placement": "remote", **settings})
