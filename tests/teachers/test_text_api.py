"""Teacher texts from a chat-completions API: a real server with a real tiny model, outages and refusals."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn
from transformers import AutoTokenizer

from rl_distill import run_setup
from rl_distill.config import ConfigError, TextAPIConfig
from rl_distill.evals.evaluation import GreedyModel
from rl_distill.generation.sampling import Sampling, added_text
from rl_distill.models.loading import load
from rl_distill.models.tokenizers import prompt_ids
from rl_distill.progress import Stages
from rl_distill.serving.app import create_app
from rl_distill.serving.service import load_service
from rl_distill.serving.settings import Limits, VariantSpec
from rl_distill.startup.findings import StartError
from rl_distill.teachers.http_api.client import TeacherServerError
from rl_distill.teachers.http_api.text_api import TextAPI, cut_at
from rl_distill.types import Problem
from tests import own_models

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = own_models.write(tmp_path_factory.mktemp("models"))
    tokenizer = AutoTokenizer.from_pretrained(folder / "large")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "large")
    return folder


@pytest.fixture
def served(folder):
    """`rl-distill serve` of the larger teacher: (its address, the service)."""
    limits = Limits(max_prompt_tokens=256, max_new_tokens=32)
    service = load_service([VariantSpec("writer", str(folder / "large"), 1.0)], limits)
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1", service
    server.should_exit = True
    thread.join(20)
    service.close()


def config(folder, tmp_path, url, **changes):
    api = {"url": url, "model": "writer", "wait_s": 5, "num_connections": 2}
    settings = {
        "teacher__model": str(folder / "small"),
        "teacher__num_outputs_per_prompt": 1,
        "rewards": [{"fn": "bleu"}],
    }
    return own_models.config(folder, tmp_path / "run", **settings | {"teacher__text_api": api} | changes)


def test_texts_of_a_run_are_those_of_the_served_model_and_are_paid_for_once(served, folder, tmp_path, capsys):
    url, _ = served
    settings = config(folder, tmp_path, url)
    train = run_setup.prepare(settings, Stages(quiet=True)).splits.train
    assert "by its own count" in capsys.readouterr().out
    model, tokenizer = load(folder / "large")[0], AutoTokenizer.from_pretrained(folder / "large")
    for problem in train[:4]:  # by the model itself, in this process
        ids = prompt_ids(tokenizer, [f"user: {problem.prompt}\nassistant:"])
        written = GreedyModel(model, tokenizer).generate(ids, Sampling(12, temperature=0.0), 1)[0]
        assert problem.columns["teacher_output"] == [added_text(tokenizer, ids[0], written.token_ids)]
    again = run_setup.prepare(settings, Stages(quiet=True)).splits.train
    assert [p.columns["teacher_output"] for p in again] == [p.columns["teacher_output"] for p in train]
    assert "by its own count" not in capsys.readouterr().out  # all from the cache


def test_an_api_that_is_away_or_unknown_is_one_line_at_the_start(folder, tmp_path, served, monkeypatch):
    monkeypatch.setattr("rl_distill.teachers.http_api.client.FIRST_CONTACT_S", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url, model, words in (
        (f"http://127.0.0.1:{port}/v1", "writer", "teacher.text_api http.* did not answer for 0 s .* look at"),
        (served[0], "nobody", "does not serve 'nobody'; it has: "),
    ):
        api = {"url": url, "model": model}
        with pytest.raises((StartError, TeacherServerError), match=words) as told:
            run_setup.prepare(config(folder, tmp_path, url, teacher__text_api=api), Stages(quiet=True))
        assert "\n" not in str(told.value)
    with pytest.raises(ConfigError, match=r"teacher\.text_api needs url and model"):
        config(folder, tmp_path, None)


@contextlib.contextmanager
def answering(*answers):
    """A server on a free port that gives these answers in turn, the last for ever: (status, body)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.headers.get("Authorization"), body))
            status, answer = answers[min(len(asked), len(answers)) - 1]
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):  # an API that lists no models
            self.send_error(404)

        def log_message(self, *args): ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield TextAPIConfig(f"http://127.0.0.1:{http.server_address[1]}/v1", "m", "MY_KEY", wait_s=3), asked
    http.shutdown()
    http.server_close()


def said(text, reason="stop"):
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": reason}], "usage": usage}


HOW = {"max_tokens": 5, "temperature": 0.0, "top_p": 1.0}


def test_outages_are_waited_for_the_key_is_sent_and_tokens_are_counted(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    away = (503, {"error": "busy"}), (429, {"error": "slow down"})
    with answering(*away, said("4. Q: more"), said("5", "length")) as (settings, asked):
        api = TextAPI(settings)
        (first,) = api.write([Problem("t", "k", "2+2?")], **HOW, stop=["Q:"])
        (second,) = api.write([Problem("t", "l", "2+3?")], **HOW)
    assert (first.text, first.finished) == ("4. Q:", True)
    assert (second.text, second.finished) == ("5", False)
    assert [key for key, _ in asked] == ["Bearer secret"] * 4
    assert asked[-1][1]["messages"] == [{"role": "user", "content": "2+3?"}]
    assert (api.prompt_tokens, api.completion_tokens) == (6, 4)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(None, "content_filter"), r"no text came for problem 'k' \(finish_reason 'content_filter'\)"),
        (said(""), "no text came for problem 'k'"),
        ((200, {"output": "4"}), "another form than OpenAI's for problem 'k'"),
        ((401, {"error": "bad\nkey"}), "refused a request with status 401"),
        ((500, {"error": "down"}), "teacher.text_api .* did not answer for 3 s"),
    ],
)
def test_a_text_that_never_came_is_one_line_and_no_text(answer, words):
    with answering(answer) as (settings, _), pytest.raises(TeacherServerError, match=words) as told:
        TextAPI(settings).write([Problem("t", "k", "2+2?")], **HOW)
    assert "\n" not in str(told.value)


def test_texts_end_with_the_first_stop_string():
    assert cut_at("a\nQ: b", ["Q:", "\n"]).text == "a\n"
    assert cut_at("a", ["Q:"]) is None
