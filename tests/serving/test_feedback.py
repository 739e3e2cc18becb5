"""Metrics, feedback, verdicts and canaries, through a real server."""

import json
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rl_distill.config import ConfigError
from rl_distill.serving.feedback import FeedbackLog, Given, RecentAnswers
from rl_distill.serving.protocol import ApiError
from rl_distill.serving.service import Canary, load_service, read_canaries
from rl_distill.serving.settings import Limits, VariantSpec
from rl_distill.serving.verification import grade
from tests.serving.conftest import LIMITS, served
from tests.serving.test_app import GREEDY, error_of


@pytest.fixture
def logged(student, tmp_path):
    service = load_service([VariantSpec("control", student, 1.0)], LIMITS, tmp_path / "feedback.jsonl")
    with served(service) as client:
        yield client, service, tmp_path / "feedback.jsonl"


def samples(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_metrics_count_requests_tokens_and_errors_by_kind(client):
    usage = [client.post("/v1/completions", json=GREEDY).json()["usage"] for _ in range(3)]
    client.post("/v1/completions", content=b"{")
    client.post("/v1/completions", content=b"x" * 20_000)
    found = samples(client)
    assert found["rl_distill_tokens_total", "completion", "control"] == sum(u["completion_tokens"] for u in usage)
    assert found["rl_distill_tokens_total", "control", "prompt"] == sum(u["prompt_tokens"] for u in usage)
    assert found["rl_distill_errors_total", "invalid_json"] == 1
    assert found["rl_distill_errors_total", "body_too_large"] == 1
    assert found["rl_distill_request_seconds_count", "control"] == 3
    assert found["rl_distill_queue_seconds_count", "control"] == 3
    assert found["rl_distill_pending_requests", "control"] == 0
    assert found["rl_distill_share", "control"] == 1
    assert found["process_resident_memory_bytes",] > 1e7


def test_feedback_is_a_row_without_the_users_name_and_counts_once(logged):
    client, _, path = logged
    answer = client.post("/v1/completions", json=GREEDY | {"user": "ann"}).json()
    row = {"id": answer["id"], "prompt": GREEDY["prompt"], "answer": answer["choices"][0]["text"], "verdict": False}
    row |= {"correction": "5", "user": "ann"}
    assert client.post("/feedback", json=row).json() == {"counted": True}
    assert client.post("/feedback", json=row).json() == {"counted": False}
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["variant"], second["variant"]) == ("control", None)
    assert {name: first[name] for name in row if name != "user"} == {k: v for k, v in row.items() if k != "user"}
    assert first["user"] == second["user"] != "ann"
    assert "ann" not in path.read_text()
    assert stat.S_IMODE((path.parent / "feedback.jsonl.key").stat().st_mode) == 0o600
    assert samples(client)["rl_distill_verdicts_total", "control", "feedback", "wrong"] == 1


@pytest.mark.parametrize("change", [{"verdict": "yes"}, {"prompt": None}, {"answer": 5}, {"correction": []}, {"id": 7}])
def test_wrong_feedback_is_a_400_and_writes_nothing(logged, change):
    client, _, path = logged
    response = client.post("/feedback", json={"prompt": "a", "answer": "b", "verdict": True} | change)
    assert response.status_code == 400
    assert path.read_text() == ""


def test_a_server_without_a_feedback_file_says_so(client):
    assert error_of(client.post("/feedback", json={})) == (404, "no_feedback")


def test_a_feedback_file_has_a_limit_and_keeps_its_key(tmp_path):
    log = FeedbackLog(tmp_path / "rows.jsonl", most_bytes=200)
    log.add({"prompt": "\ud800"}, "ann")
    with pytest.raises(ApiError, match="limit"):
        log.add({"prompt": "a" * 200}, None)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1
    assert FeedbackLog(tmp_path / "rows.jsonl").hash_of("ann") == log.hash_of("ann") != log.hash_of("bob")


def test_only_recent_answers_can_be_judged():
    recent = RecentAnswers(2)
    for name in "abc":
        recent.put(name, Given(name, None, True))
    assert [recent.take(name) for name in ("a", "b", "b")] == [None, Given("b", None, True), None]
    assert recent.take(None) is None


def test_an_answer_is_verified_on_request(client):
    text = client.post("/v1/completions", json=GREEDY).json()
    assert "verification" not in text
    sent = client.post("/v1/completions", json=GREEDY | {"verify": "math", "answer": "123456"}).json()
    assert sent["verification"] == {"kind": "math", "verdict": False, "reason": None}
    cases = {"verify": "code", "inputs": ["1\n"], "outputs": ["2\n"]}
    assert client.post("/v1/completions", json=GREEDY | cases).json()["verification"]["verdict"] is False
    assert samples(client)["rl_distill_verdicts_total", "control", "verify", "wrong"] == 2


ADDS = "```python\nprint(int(input()) + 1)\n```"


@pytest.mark.parametrize(
    ("verify", "answer", "verdict"),
    [
        ({"kind": "math", "answer": "1/2"}, "So the answer is \\boxed{0.5}.", True),
        ({"kind": "math", "answer": "1/2"}, "So the answer is \\boxed{0.6}.", False),
        ({"kind": "code", "inputs": ["1\n", "41\n"], "outputs": ["2\n", "42\n"]}, ADDS, True),
        ({"kind": "code", "inputs": ["1\n", "41\n"], "outputs": ["2\n", "43\n"]}, ADDS, False),
        ({"kind": "code", "inputs": ["1\n"], "outputs": ["2\n"]}, "import os\nos._exit(0)", False),
    ],
)
def test_the_graders_say_what_they_say_in_training(verify, answer, verdict):
    assert grade(verify, "Add one.", answer) is verdict


@pytest.mark.parametrize(
    ("columns", "param"),
    [
        ({"verify": "math"}, "answer"),
        ({"verify": "math", "answer": "1" * 2_000}, "answer"),
        ({"verify": "code"}, "inputs"),
        ({"verify": "code", "inputs": ["a"], "outputs": []}, "outputs"),
        ({"verify": "code", "inputs": ["a"], "outputs": ["a", "b"]}, "outputs"),
        ({"verify": "code", "entry_point": "f", "test": "import os; os.abort()"}, "inputs"),
    ],
)
def test_what_a_verdict_needs_is_a_400_that_names_it(client, columns, param):
    response = client.post("/v1/completions", json=GREEDY | columns)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_a_slow_grader_gives_no_verdict_and_holds_nobody(service, monkeypatch):
    import threading

    go = threading.Event()
    monkeypatch.setattr("rl_distill.serving.verification.grade", lambda *parts: go.wait(20))
    service.verifier.seconds = 0.2
    with served(service) as client:
        sent = client.post("/v1/completions", json=GREEDY | {"verify": "math", "answer": "5"}).json()
        assert sent["verification"] == {"kind": "math", "verdict": None, "reason": "timeout"}
        assert client.post("/v1/completions", json=GREEDY).status_code == 200
        go.set()


def test_canaries_measure_accuracy(service):
    (variant,) = service.variants
    prompts = ["What is 2 + 3?", "What is 4 + 4?"]
    asked = [variant.engine.submit(service._greedy(variant, Canary(prompt, ""))).result(20) for prompt in prompts]
    canaries = [Canary(prompts[0], asked[0].text), Canary(prompts[1], "-98765")]
    assert service.ask_canaries(variant, canaries) in (0.0, 0.5)  # an untrained model's text may hold no answer
    assert service.ask_canaries(variant, canaries[1:]) == 0
    with served(service) as client:
        assert samples(client)["rl_distill_canary_accuracy", "control"] == 0


def test_canaries_are_read_from_rows(tmp_path):
    path = tmp_path / "canaries.jsonl"
    path.write_text('{"prompt": "What is 1 + 1?", "answer": 2}\n')
    assert read_canaries(path) == [Canary("What is 1 + 1?", "2")]
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(ConfigError, match=r"canaries\.jsonl:1: not a JSON object"):
        read_canaries(path)


def test_lengths_beyond_the_models_context_are_refused(student):
    with pytest.raises(ConfigError, match=r"reads 512 tokens: .* not to 1256"):
        load_service([VariantSpec("control", student, 1.0)], Limits(max_new_tokens=1000))


def test_a_worse_variant_is_rolled_back_by_verdicts_of_users(models, tmp_path):
    specs = [VariantSpec("control", str(models / "student"), 0.5), VariantSpec("small", str(models / "small"), 0.5)]
    service = load_service(specs, LIMITS, tmp_path / "rows.jsonl")
    with served(service) as client:
        for number in range(200):
            user = {"user": f"user {number}"}
            answer = client.post("/v1/completions", json=GREEDY | user | {"max_tokens": 1}).json()
            verdict = answer["model"] == "control"
            client.post("/feedback", json={"id": answer["id"], "prompt": "a", "answer": "b", "verdict": verdict} | user)
            if service.router.rolled_back:
                break
        assert service.router.rolled_back == {"small"}
        assert number < 60
        found = samples(client)
        assert found["rl_distill_share", "small"] == 0
        assert found["rl_distill_share", "control"] == 1


def test_answers_of_a_model_chosen_by_name_are_not_compared(models, tmp_path):
    specs = [VariantSpec("control", str(models / "student"), 0.5), VariantSpec("small", str(models / "small"), 0.5)]
    service = load_service(specs, LIMITS, tmp_path / "rows.jsonl")
    judge = {"verify": "math", "answer": "987654", "max_tokens": 1}
    with served(service) as client:
        for name in ("control", "small"):
            client.post("/v1/completions", json=GREEDY | judge | {"model": name})
        assert [len(stream) for stream in service.router.tests["small"].waiting] == [0, 0]
        sent = client.post("/v1/completions", json=GREEDY | judge | {"model": "auto"}).json()
        waiting = [len(stream) for stream in service.router.tests["small"].waiting]
        assert waiting == ([1, 0] if sent["model"] == "control" else [0, 1])
