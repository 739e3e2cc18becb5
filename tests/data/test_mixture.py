"""Several sources are drawn by their shares, each in passes of its own, whatever was interrupted."""

import json
import random

import pytest

from rl_distill.config import ConfigError, DataConfig, MixtureEntry, load_config
from rl_distill.config.sampling import mixture_shares
from rl_distill.data.loading import load_splits
from rl_distill.data.mixture import PromptSampler, SharedPlaces
from rl_distill.types import Problem


def problems(**sizes):
    return [Problem(name, f"{name}{i}", f"{name} {i}", source=name) for name, n in sizes.items() for i in range(n)]


def names(sampler, steps):
    return [sampler.problems[row].source for step in steps for row in sampler.rows(step)]


def test_no_group_is_ever_a_place_away_from_its_share():
    draw = random.Random(0)
    for _ in range(150):
        weights = [draw.random() ** 3 + 1e-3 for _ in range(draw.randint(2, 9))]
        shares = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
        counts = dict.fromkeys(shares, 0)
        for n, name in enumerate(SharedPlaces(list(shares)).draw(shares, 400), start=1):
            counts[name] += 1
            assert all(abs(counts[k] - n * share) < 1 for k, share in shares.items())


def test_shares_that_change_at_every_step_are_kept_within_two_places():
    draw = random.Random(1)
    for _ in range(30):
        names = [str(i) for i in range(draw.randint(2, 9))]
        places, counts, quotas = SharedPlaces(names), dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
        for _ in range(50):
            weights = [draw.random() ** 4 + 1e-4 for _ in names]
            shares = {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
            for name in places.draw(shares, 8):
                counts[name] += 1
            quotas = {name: quotas[name] + 8 * shares[name] for name in names}
            assert all(abs(counts[name] - quotas[name]) < 2 for name in names)


def test_five_places_of_four_to_one():
    places = SharedPlaces(["a", "b"]).draw({"a": 0.8, "b": 0.2}, 10)
    assert places.count("a") == 8
    assert sorted((places[:5].count("b"), places[5:].count("b"))) == [1, 1]


def test_each_source_is_walked_in_passes_of_its_own():
    sampler = PromptSampler(problems(a=6, b=4), 5, 0, {"a": 3, "b": 2})
    found = [sampler.rows(step) for step in range(4)]  # 12 places of a, 8 of b
    for rows in sampler.groups.values():
        own = [row for step in found for row in step if row in rows]
        size = len(rows)
        assert sorted(own[:size]) == sorted(own[size:]) == rows
        assert own[:size] != own[size:]


def test_the_same_seed_draws_the_same_and_another_does_not():
    drawn = [PromptSampler(problems(a=50, b=50), 8, seed, {"a": 1, "b": 1}).rows(0) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_step_that_is_asked_for_twice_is_the_same():
    sampler = PromptSampler(problems(a=9), 4, 0)
    assert sampler.rows(0) == sampler.rows(0)
    assert not set(sampler.rows(0)) & set(sampler.rows(1))


def test_a_resumed_sampler_goes_on_where_it_was():
    whole = PromptSampler(problems(a=7, b=5), 3, 0, {"a": 0.61, "b": 0.39})
    expected = [whole.rows(step) for step in range(30)]
    first = PromptSampler(problems(a=7, b=5), 3, 0, {"a": 0.61, "b": 0.39})
    for step in range(13):
        first.rows(step)
    second = PromptSampler(problems(a=7, b=5), 3, 0, {"a": 0.61, "b": 0.39})
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.rows(step) for step in range(13, 30)] == expected[13:]


def test_entries_keep_their_task_and_source(tmp_path, tokenizer):
    for name in "abc":
        rows = [{"prompt": f"{name} {i}", **({"task": "own"} if name == "c" else {})} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = [MixtureEntry(str(tmp_path / f"{name}.jsonl"), "math", 1.0, name) for name in "abc"]
    train = load_splits(DataConfig(mixture=tuple(entries)), tokenizer, 0).train
    assert {(p.source, p.task) for p in train} == {("a", "math"), ("b", "math"), ("c", "own")}
    repeated = (*entries, MixtureEntry(str(tmp_path / "a.jsonl"), "math", 1.0, "again"))
    with pytest.warns(UserWarning, match="repeat"), pytest.raises(ConfigError, match=r"again.* no prompt left"):
        load_splits(DataConfig(mixture=repeated), tokenizer, 0)


OWN = {"demo": None, "student.model": "s", "teacher.model": "t"}
A = {"train": "a.jsonl", "task": "a"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data.mixture": [A], "data.train": "b.jsonl"}, "exclude each other"),
        ({"data.mixture": [A], "demo": {}}, "demo: null"),
        ({"data.mixture": []}, "demo is null|empty"),
        ({"data.mixture": [{"task": "a"}]}, r"data.mixture\[0\] needs `train`"),
        ({"data.mixture": [A | {"anchor_only": True}]}, "every entry is anchor_only"),
        ({"data.mixture": [A | {"anchor_only": True}], "anchor.placement": "none"}, "anchor_only needs"),
        ({"data.mixture": [A, A]}, "two entries are called 'a'"),
        ({"data.mixture": [A | {"share": 0}]}, r"data.mixture\[0\].share must be above 0"),
        ({"data.mixture": [A | {"weight": 1}]}, "unknown setting 'data.mixture"),
    ],
)
def test_a_wrong_mixture_is_one_line(settings, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(None, OWN | settings)
    assert "\n" not in str(caught.value)


def test_shares_are_relative():
    config = load_config(
        None, OWN | {"data.mixture": [A | {"share": 7}, {"train": "b.jsonl", "task": "b", "share": 3}]}
    )
    sampler = PromptSampler(problems(a=5, b=5), 10, 0, {e.label: e.share for e in config.data.mixture})
    assert names(sampler, range(1)).count("a") == 7
    assert load_config(None, config.to_dict()) == config


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("nowhere.jsonl", r"^data.mixture\[1\].train: file '.*nowhere.jsonl' does not exist"),
        ("torn.jsonl", r"^data.mixture\[1\].train: .*torn.jsonl line 1 is no JSON"),
        ("other.jsonl", r"no column 'prompt'; .*\(data.mixture\[1\].train\)"),
    ],
)
def test_what_is_wrong_with_a_source_names_its_entry(tmp_path, second, message):
    (tmp_path / "a.jsonl").write_text('{"prompt": "1 + 1"}\n')
    (tmp_path / "torn.jsonl").write_text('{"prompt": \n')
    (tmp_path / "other.jsonl").write_text('{"words": "1 + 1"}\n')
    entries = tuple(MixtureEntry(train=str(tmp_path / name), name=name) for name in ("a.jsonl", second))
    with pytest.raises(ConfigError, match=message):
        load_splits(DataConfig(mixture=entries), None, 0)


def test_shares_of_tokens_hold_whatever_the_lengths():
    """Rows of 10 and of about 400 tokens at equal shares, lengths known only once they were drawn: within 1 %."""
    found = problems(short=300, long=300)
    draw = random.Random(0)
    lengths = [draw.uniform(5, 15) if p.source == "short" else draw.uniform(50, 800) for p in found]
    sampler = PromptSampler(found, 16, 0, {"short": 1, "long": 1}, [30.0] * len(found))
    totals = {"short": 0.0, "long": 0.0}
    for step in range(200):
        rows = sampler.rows(step)
        for row in rows:
            totals[found[row].source] += lengths[row]
        sampler.observe_tokens([lengths[row] for row in rows])
    assert totals["short"] / sum(totals.values()) == pytest.approx(0.5, abs=0.01)
    assert sampler.metrics()["sampling/tokens/short"] == pytest.approx(totals["short"] / sum(totals.values()))


@pytest.mark.parametrize("preset", ["task_7_general_3", "domain_30", "domain_40", "domain_50"])
def test_presets_hold_within_one_percent_of_the_tokens(preset):
    parts = {"a": "task", "b": "general", "c": "domain"}
    entries = [MixtureEntry(name, name, 2.0 if name == "a" else 1.0, part=part) for name, part in parts.items()]
    shares = mixture_shares(entries, preset)
    wanted = {"task_7_general_3": ("b", 0.3), "domain_30": ("c", 0.3), "domain_40": ("c", 0.4), "domain_50": ("c", 0.5)}
    label, share = wanted[preset]
    others = [name for name in "abc" if name != label]
    assert shares[label] == pytest.approx(share)
    assert shares[others[0]] == pytest.approx(2 * shares[others[1]])  # a has twice the share of either of the others
    found = problems(a=50, b=50, c=50)
    draw, counts = random.Random(1), dict.fromkeys("abc", 0.0)
    lengths = [draw.expovariate(1 / {"a": 80, "b": 500, "c": 30}[p.source]) + 1 for p in found]
    sampler = PromptSampler(found, 32, 0, shares, lengths)
    for step in range(100):
        rows = sampler.rows(step)
        sampler.observe_tokens([lengths[row] for row in rows])
        for row in rows:
            counts[found[row].source] += lengths[row]
    assert {name: n / sum(counts.values()) for name, n in counts.items()} == pytest.approx(shares, abs=0.01)


def test_shares_of_tokens_are_resumed_exactly():
    def run(sampler, steps):
        found = []
        for step in steps:
            found.append(sampler.rows(step))
            sampler.observe_tokens([float(row % 7 + 1) for row in found[-1]])
        return found

    def make():
        return PromptSampler(problems(a=7, b=5), 3, 0, {"a": 0.6, "b": 0.4}, [4.0] * 12)

    whole, first, second = run(make(), range(30)), make(), make()
    run(first, range(13))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert run(second, range(13, 30)) == whole[13:]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data.mixture": [A], "data.mixture_preset": "domain_30"}, "none of the former"),
        ({"data.mixture": [A | {"part": "domain"}], "data.mixture_preset": "domain_30"}, "no others"),
        ({"data.train": "a.jsonl", "data.share_by": "tokens"}, "are of data.mixture"),
    ],
)
def test_a_preset_needs_its_parts(settings, words):
    with pytest.raises(ConfigError, match=words):
        load_config(None, OWN | settings)


def test_prompts_that_are_too_long_are_told_of_their_entry(tmp_path, tokenizer, capsys):
    for name, words in (("a", 3), ("b", 60)):
        rows = [{"prompt": f"{name} {i} " + "word " * (words if i < 2 else 1)} for i in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = tuple(MixtureEntry(train=str(tmp_path / f"{name}.jsonl"), name=name) for name in "ab")
    load_splits(DataConfig(mixture=entries, max_prompt_length=40), tokenizer, 0)
    told = capsys.readouterr().out
    assert "data.mixture[1].train: 2 of 30 prompts are longer" in told
    assert "data.train" not in told
