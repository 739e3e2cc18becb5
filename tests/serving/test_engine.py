"""Answers do not depend on the load; a failure reaches every request, and the engine comes back."""

import threading
import time

import pytest

from rl_distill.demo.problems import make_problems
from rl_distill.generation.sampling import Sampling, generate
from rl_distill.models.loading import load
from rl_distill.serving.engine import Answer, Engine, EngineError, QueueFull, StudentDecoder, Work
from rl_distill.types import Finish

OPTIONS = {"batch_size": 16, "queue_length": 1000, "most_new_tokens": 64}


@pytest.fixture(scope="module")
def decoder(student):
    return StudentDecoder.load(student)


@pytest.fixture
def engine(decoder):
    engine = Engine(lambda: decoder, **OPTIONS)
    yield engine
    engine.close()


def works(tokenizer, **options):
    prompts = [problem.prompt for problem in make_problems("test", 40, 1)]
    return [Work(tuple(tokenizer(p)["input_ids"]), 3 + i % 14, seed=i, **options) for i, p in enumerate(prompts)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_under_load_equal_answers_alone(engine, decoder, temperature):
    asked = works(decoder.tokenizer, temperature=temperature)
    together = [engine.submit(work) for work in asked]
    answers = [future.result(30) for future in together]
    assert answers == [engine.submit(work).result(30) for work in asked]
    assert len({answer.text for answer in answers}) > 30


def test_a_greedy_answer_is_what_the_sampler_gives_for_the_prompt_alone(engine, student):
    model, tokenizer = load(student)
    for work in works(tokenizer)[:10]:
        expected = generate(
            model,
            [work.prompt_ids],
            Sampling(work.max_new_tokens, 0.0),
            eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
            vocab_size=len(tokenizer),
        )[0]
        answer = engine.submit(work).result(30)
        assert answer.text == tokenizer.decode(expected.token_ids, skip_special_tokens=True)
        assert (answer.num_tokens, answer.finish) == (len(expected.token_ids), expected.finish)


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(engine, decoder):
    work = works(decoder.tokenizer)[0]
    whole = engine.submit(Work(work.prompt_ids, 32)).result(30).text
    stop = whole[5]
    answer = engine.submit(Work(work.prompt_ids, 32, stops=(stop,))).result(30)
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish is Finish.STOP


class Gate:
    """A decoder that waits for the test, records its batches, and fails when it is told to."""

    def __init__(self):
        self.open, self.fails, self.batches = threading.Event(), False, []

    def decode(self, batch, most_new_tokens):
        self.batches.append([work.seed for work in batch])
        assert self.open.wait(20)
        if self.fails:
            raise MemoryError("no memory")
        return [Answer(str(work.seed), 1, Finish.STOP) for work in batch]


def test_a_failure_reaches_every_waiting_request_and_the_engine_restarts():
    broken, sound = Gate(), Gate()
    broken.fails = True
    sound.open.set()
    made = iter([broken, sound])
    engine = Engine(lambda: next(made), **OPTIONS)
    futures = [engine.submit(Work((1,), 4, seed=seed)) for seed in range(50)]
    broken.open.set()
    for future in futures:
        with pytest.raises(EngineError, match="MemoryError"):
            future.result(10)
    until = time.monotonic() + 10
    while not engine.is_ready and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.submit(Work((1,), 4, seed=7)).result(10).text == "7"
    engine.close()


def test_a_full_queue_refuses_and_forgets_nothing():
    gate = Gate()
    engine = Engine(lambda: gate, batch_size=2, queue_length=5, most_new_tokens=64)
    futures = [engine.submit(Work((1,), 4, seed=seed)) for seed in range(5)]
    with pytest.raises(QueueFull):
        engine.submit(Work((1,), 4))
    gate.open.set()
    assert [future.result(10).text for future in futures] == ["0", "1", "2", "3", "4"]
    engine.close()


def test_a_batch_shares_sampling_settings_and_the_oldest_goes_first():
    gate = Gate()
    engine = Engine(lambda: gate, batch_size=3, queue_length=50, most_new_tokens=64)
    first = engine.submit(Work((1,), 4, seed=99))
    while not gate.batches:
        time.sleep(0.001)
    lengths = [8, 5, 3, 7, 6, 8]  # 5 to 8 share a batch of length 8
    futures = [engine.submit(Work((1,), length, seed=seed)) for seed, length in enumerate(lengths)]
    gate.open.set()
    [future.result(10) for future in (first, *futures)]
    assert gate.batches == [[99], [0, 1, 3], [2], [4, 5]]
    engine.close()


def test_closing_answers_what_waits():
    gate = Gate()
    gate.open.set()
    engine = Engine(lambda: gate, **OPTIONS)
    futures = [engine.submit(Work((1,), 4, seed=seed)) for seed in range(40)]
    engine.close()
    assert [future.result(0).text for future in futures] == [str(seed) for seed in range(40)]
    with pytest.raises(EngineError):
        engine.submit(Work((1,), 4))
