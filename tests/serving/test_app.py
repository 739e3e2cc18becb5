"""The HTTP side over a real server: answers, limits, keys, hostile clients, the drain."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from rl_distill.cli import main
from rl_distill.serving.service import load_service
from rl_distill.serving.settings import VariantSpec, with_control
from tests.serving.conftest import LIMITS, served

GREEDY = {"prompt": "What is 2 + 3?", "max_tokens": 8, "temperature": 0}


def error_of(response):
    """(status, code) of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def test_a_completion_has_openais_shape(client):
    body = client.post("/v1/completions", json=GREEDY).json()
    assert body["object"] == "text_completion"
    assert body["model"] == "control"
    (choice,) = body["choices"]
    assert isinstance(choice["text"], str)
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert 1 <= usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_chat_without_a_template_is_its_contents(client):
    messages = [{"role": "user", "content": GREEDY["prompt"]}]
    chat = client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 8, "temperature": 0}).json()
    plain = client.post("/v1/completions", json=GREEDY).json()
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": plain["choices"][0]["text"]}


def test_answers_under_load_over_http_equal_answers_alone(client):
    bodies = [{**GREEDY, "prompt": f"What is {i} + {j}?"} for i in range(6) for j in range(6)]
    ask = lambda body: client.post("/v1/completions", json=body).json()["choices"]  # noqa: E731
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, bodies))
    assert together == [ask(body) for body in bodies]


def test_health_models_and_unknown_paths(client):
    assert client.get("/health").json() == {"ready": True, "variants": {"control": True}}
    assert [row["id"] for row in client.get("/v1/models").json()["data"]] == ["auto", "control"]
    assert error_of(client.get("/nothing")) == (404, "no_such_route")
    assert error_of(client.get("/v1/completions")) == (405, "no_such_route")
    assert error_of(client.post("/v1/completions", json={**GREEDY, "model": "gpt"})) == (404, "model_not_found")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": ""},
        {"prompt": 5},
        {"prompt": None},
        {"prompt": "\ud800"},
        {"max_tokens": 0},
        {"max_tokens": 65},
        {"max_tokens": True},
        {"max_tokens": 1e9},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": 10**400},
        {"top_p": 0},
        {"stop": ["a"] * 5},
        {"stop": ["\udfff"]},
        {"stop": {"a": 1}},
        {"seed": -1},
        {"seed": 2**70},
        {"user": "u" * 300},
        {"n": 2},
        {"stream": True},
        {"logprobs": 5},
        {"tools": [{}]},
        {"verify": "poetry"},
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(client, change):
    response = client.post("/v1/completions", content=json.dumps(GREEDY | change))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(change))


@pytest.mark.parametrize("messages", [None, [], "hello", [{"role": "user"}], [5], [{"role": 1, "content": "a"}]])
def test_wrong_messages_are_a_400(client, messages):
    assert client.post("/v1/chat/completions", json={"messages": messages}).status_code == 400


HOSTILE = {
    "broken": (b'{"prompt": "a', 400),
    "empty": (b"", 400),
    "list": (b"[1]", 400),
    "deep": (b"[" * 16_000, 400),
    "digits": (b'{"seed": ' + b"9" * 10_000 + b"}", 400),
    "bytes": (bytes(range(256)), 400),
    "large": (b'{"prompt": "' + b"a" * 20_000 + b'"}', 413),
    "endless prompt": (b'{"prompt": "' + b"1 " * 7_000 + b'"}', 400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused(client, name):
    body, status = HOSTILE[name]
    assert error_of(client.post("/v1/completions", content=body))[0] == status


def test_a_body_of_unknown_length_is_cut_off(client):
    def endless():
        for _ in range(200):
            yield b"x" * 1_000

    assert error_of(client.post("/v1/completions", content=endless())) == (413, "body_too_large")


def test_slow_clients_and_those_that_leave_take_nothing_from_others(client):
    address = (client.base_url.host, client.base_url.port)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection(address) for _ in range(50)]
    for number, connection in enumerate(slow):
        connection.sendall(head if number % 2 else head[:20])
    for _ in range(20):
        with socket.create_connection(address) as leaving:
            body = json.dumps(GREEDY).encode()
            leaving.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
    start = time.monotonic()
    assert client.post("/v1/completions", json=GREEDY).status_code == 200
    assert time.monotonic() - start < 5
    assert slow[1].recv(12) == b"HTTP/1.1 408"
    for connection in slow:
        connection.close()
    assert client.get("/health").json()["ready"]


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_requests_leave_the_server_answering(client, count):
    bodies = [body for body, _ in HOSTILE.values()]

    def send(number):
        return client.post("/v1/completions", content=bodies[number % len(bodies)]).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(count))) == {400, 413}
    assert client.post("/v1/completions", json=GREEDY).status_code == 200


def test_with_a_key_others_are_refused(service):
    with served(service, api_key="secret") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer s\u00e9cret".encode()}):
            assert error_of(client.post("/v1/completions", json=GREEDY, headers=headers)) == (401, "invalid_api_key")
        right = {"Authorization": "Bearer secret"}
        assert client.post("/v1/completions", json=GREEDY, headers=right).status_code == 200
        assert client.get("/health").status_code == 200


def test_a_full_queue_is_a_429_and_a_broken_engine_a_503(service):
    class Stuck:
        def __init__(self):
            self.go = threading.Event()

        def decode(self, batch, most_new_tokens):
            self.go.wait(20)
            raise RuntimeError("device lost")

    (variant,) = service.variants
    stuck, sound = Stuck(), variant.engine._decoder
    variant.engine._decoder, variant.engine.queue_length = stuck, 3
    with served(service) as client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.post, "/v1/completions", json=GREEDY) for _ in range(3)]
        while variant.engine.num_pending < 3:
            time.sleep(0.01)
        refused = client.post("/v1/completions", json=GREEDY)
        assert error_of(refused) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1"
        stuck.go.set()
        assert [error_of(future.result(20)) for future in asked] == [(503, "engine_unavailable")] * 3
        until = time.monotonic() + 20
        while client.get("/health").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert variant.engine._decoder is not sound
        assert client.post("/v1/completions", json=GREEDY).status_code == 200


@pytest.fixture
def process(student):
    command = [sys.executable, "-m", "rl_distill.cli", "serve", student, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    line = process.stdout.readline()
    assert line.startswith("serving on http://127.0.0.1:"), line
    yield process, line.split()[2]
    process.kill()
    process.wait(10)


def test_sigterm_answers_what_was_accepted_and_ends_with_status_0(process):
    running, url = process
    body = {**GREEDY, "max_tokens": 256}
    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(client.post, f"{url}/completions", json=body) for _ in range(24)]
        time.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        assert [future.result(30).status_code for future in asked] == [200] * 24
    assert running.wait(20) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variant", "a=b"], "--variant 'a=b' is not NAME=FOLDER:SHARE"),
        (["--variant", "a=b:2"], "the share must be above 0 and below 1"),
        (["--variant", "a=b:0.5", "--variant", "c=d:0.5"], "the shares must sum to less than 1"),
        (["--variant", "control=b:0.5"], "names must differ"),
        (["--queue_length", "0"], "--queue_length: 0 is not at least 1"),
        (["--host", "0.0.0.0"], "set --api_key"),
        (["--port", "99999"], "--port 99999 is not between 0 and 65535"),
        ([], "serve: 'nowhere' cannot be loaded"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(capsys, monkeypatch, words, message):
    monkeypatch.delenv("RLD_API_KEY", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["serve", "nowhere", *words])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_used_port_is_told_before_a_model_is_looked_for(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["serve", "nowhere", "--port", str(taken.getsockname()[1])])
    assert ended.value.code == 2
    assert re.fullmatch(
        r"error: --port \d+ on 127.0.0.1: address already in use; choose another.*\n", capsys.readouterr().err
    )


def test_variants_are_served_by_name(models):
    specs = with_control(str(models / "student"), [VariantSpec("small", str(models / "small"), 0.25)])
    assert specs[0].share == 0.75
    service = load_service(specs, LIMITS)
    with served(service) as client:
        texts = [client.post("/v1/completions", json=GREEDY | {"model": name}).json() for name in ("control", "small")]
    assert [body["model"] for body in texts] == ["control", "small"]
    assert texts[0]["choices"] != texts[1]["choices"]
