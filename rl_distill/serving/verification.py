"""Is an answer right? The graders of rewards and evaluation, for one request, in threads with a limit on their time.

Code is judged by cases of input and output only: the text of a test runs outside the sandbox and is for trusted
problems, so none is taken from a client.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reward_models.code_execution import code_execution
from reward_models.math_answers import math_answer

from .protocol import bad

MOST_CASES, MOST_CASE_CHARACTERS, MOST_ANSWER_CHARACTERS = 32, 16_384, 1_000
NUM_THREADS, MOST_WAITING = 2, 32


def check_verify(verify: Mapping[str, Any]) -> None:
    """Raises ApiError 400 where the columns that a kind needs are missing."""
    if verify["kind"] == "math":
        answer = verify.get("answer")
        if not isinstance(answer, str) or not 0 < len(answer) <= MOST_ANSWER_CHARACTERS:
            raise bad(
                "answer", f"verify: math needs the right answer, a text of 1 to {MOST_ANSWER_CHARACTERS} characters"
            )
        return
    for name in ("inputs", "outputs"):
        cases = verify.get(name)
        if not isinstance(cases, list) or not 0 < len(cases) <= MOST_CASES:
            raise bad(name, f"verify: code needs a list of 1 to {MOST_CASES} texts")
        if any(not isinstance(case, str) or len(case) > MOST_CASE_CHARACTERS for case in cases):
            raise bad(name, f"texts of at most {MOST_CASE_CHARACTERS} characters")
    if len(verify["inputs"]) != len(verify["outputs"]):
        raise bad("outputs", "as many as inputs")


def grade(verify: Mapping[str, Any], prompt: str, answer: str) -> bool | None:
    """Whether the answer is right; None where the grader could not say."""
    if verify["kind"] == "math":
        (score,) = math_answer(completions=[answer], answer=[verify["answer"]])
    else:
        (score,) = code_execution(
            prompts=[prompt], completions=[answer], inputs=[verify["inputs"]], outputs=[verify["outputs"]]
        )
    return None if score is None or math.isnan(score) else score == 1


class Verifier:
    """Few threads for all requests; a verdict that takes too long, or finds too many waiting, is None."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._num_waiting = seconds, 0
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="verify")

    async def verdict(self, verify: Mapping[str, Any], prompt: str, answer: str) -> dict[str, Any]:
        """{kind, verdict, reason}: `reason` says why there is no verdict."""
        result: dict[str, Any] = {"kind": verify["kind"], "verdict": None, "reason": None}
        if self._num_waiting >= MOST_WAITING:
            return result | {"reason": "busy"}
        self._num_waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, grade, verify, prompt, answer)
        future.add_done_callback(self._done)
        try:
            verdict = await asyncio.wait_for(asyncio.shield(future), self.seconds)
        except TimeoutError:
            return result | {"reason": "timeout"}
        except Exception as error:  # whatever a grader raises is no verdict on the answer
            return result | {"reason": f"grader failed ({type(error).__name__})"}
        return result | {"verdict": verdict, "reason": "ungraded" if verdict is None else None}

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._num_waiting -= 1
        if not future.cancelled():
            future.exception()  # read, so that asyncio does not report it as lost

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
