"""Arrivals, quantiles and the report by hand; a run against a real server; other machines are refused."""

import json
import random

import pytest

from rl_distill.cli import main
from rl_distill.serving.load_test import Level, LoadTest, _Sample, arrivals, best_rate, quantile, summary
from rl_distill.serving.settings import is_loopback


def test_arrivals_are_poisson():
    times = arrivals(50, 200, random.Random(0))
    gaps = [b - a for a, b in zip([0.0, *times], times)]
    assert len(times) == pytest.approx(10_000, abs=400)  # four standard deviations
    assert sum(gap > 0.02 for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.02)  # exp(-1)
    assert times == sorted(times)
    assert times[-1] < 200


def test_quantiles_by_hand():
    assert [quantile([4, 1, 3, 2], share) for share in (0.5, 0.75, 0.95)] == [2, 3, 4]
    assert quantile([], 0.5) is None


def test_a_level_by_hand():
    samples = [_Sample(0.0, 0.001, 0.1, 8), _Sample(1.0, 0.0, 1.4, 8), _Sample(1.5, 0.2, 2.0, 0, "429")]
    level = summary(1.5, samples)
    assert (level.num_sent, level.num_answered, level.errors) == (3, 2, {"429": 1})
    assert (level.achieved, level.tokens_per_second) == (1.0, 8.0)
    assert (level.p50, level.p95, level.lag_p95) == (pytest.approx(0.1), pytest.approx(0.4), 0.2)


def test_the_best_rate_has_no_error():
    def level(rate, sent, answered, p95):
        return Level(rate, sent, answered, {}, 1, 1, p95, p95, p95, 0)

    levels = [level(1, 9, 9, 0.2), level(2, 9, 9, 0.9), level(3, 9, 8, 0.9), level(4, 9, 9, 1.0)]
    assert best_rate(levels, 1.0) == 2
    assert best_rate(levels[2:], 1.0) is None


def test_a_run_against_a_server_writes_its_report(client, tmp_path, capsys):
    url = str(client.base_url)
    words = ["--rates", "20,30", "--seconds", "1", "--out", str(tmp_path), "--max_requests", "40"]
    assert main(["load-test", url, *words]) == 0
    report = json.loads((tmp_path / "load_test.json").read_text())
    sent = [level["num_sent"] for level in report["levels"]]
    assert sum(sent) <= 40
    assert [level["num_answered"] for level in report["levels"]] == sent
    assert all(0 < level["p50"] <= level["p95"] <= level["p99"] for level in report["levels"])
    assert (tmp_path / "load_test.md").read_text().count("\n| ") == 1 + len(sent)
    metrics = client.get("/metrics").text
    assert f'rl_distill_answers_total{{finish="length",variant="control"}} {sum(sent) + 1:.1f}' in metrics


def test_the_ramp_ends_where_the_server_refuses(service, tmp_path):
    from tests.serving.conftest import served

    with served(service, api_key="secret") as client:
        words = ["--rates", "20,30,40", "--seconds", "0.5", "--out", str(tmp_path)]
        assert main(["load-test", str(client.base_url), *words]) == 0
    (level,) = json.loads((tmp_path / "load_test.json").read_text())["levels"]
    assert level["errors"] == {"401": level["num_sent"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://example.com"], "only servers on this machine"),
        (["http://127.0.0.1.example.com:80"], "only servers on this machine"),
        (["http://127.0.0.1@example.com"], "only servers on this machine"),
        (["http://10.0.0.1:8000"], "only servers on this machine"),
        (["https://127.0.0.1:8000"], "only servers on this machine"),
        (["http://127.0.0.1:9"], "nothing answers there"),
        (["http://127.0.0.1:9", "--rates", "0"], "--rates: numbers above 0"),
        (["http://127.0.0.1:9", "--rates", "fast"], "--rates fast: write numbers with commas"),
        (["http://127.0.0.1:9", "--seconds", "1e9"], "--seconds: 1000000000.0 is not at least 0.5"),
        (["http://127.0.0.1:9", "--prompts", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_mistake_is_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["load-test", *words])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_loopback_is_known_by_its_address():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.1", "localhost.example.com", "", "my-host"]))


def test_a_key_is_not_shown():
    assert "secret" not in repr(LoadTest("http://127.0.0.1:9", (1.0,), ("a",), api_key="secret"))
