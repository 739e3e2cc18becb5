"""From text to program: fences as models write them, code in several blocks, `__future__`, reasoning that never ends.

Every program is run (all are written in this file), so a right assembly is one whose function gives the right number.
"""

import time

import pytest

from reward_models.fences import python_blocks
from reward_models.programs import assemble, defines, find_code, program_head, script
from reward_models.reasoning import after_reasoning, opens_reasoning

HEAD = "from typing import List\n\n\ndef double(x):\n    '''Twice x.'''\n"
GOOD = "def double(x):\n    return 2 * x\n"
DOCUMENTED = (
    "def double(x):\n    '''Twice x.\n\n    ```\n    >>> double(1)\n    2\n    ```\n    '''\n    return 2 * x\n"
)
HELPED = "def double(x):\n    return helper(x) + x\n"


def fenced(code: str, label: str = "python") -> str:
    return f"```{label}\n{code}```\n"


def indented(text: str, width: int) -> str:
    return "".join(" " * width + line for line in text.splitlines(keepends=True))


def result_of(completion: str, head: str = HEAD) -> object:
    names: dict = {}
    exec(assemble(head, completion, "double"), names)  # trusted: written in this file
    return names["double"](4)


@pytest.mark.parametrize(
    "completion",
    [
        "1. Here:\n\n" + indented(fenced(GOOD), 3),
        "- a\n  - b\n\n" + indented(fenced(GOOD), 6) + "- c\n",
        "1. " + indented(fenced(GOOD), 3).lstrip(),
        "1. Here:\n\n" + indented(fenced(DOCUMENTED), 4),
        fenced(GOOD).rstrip() + " Done.",
        fenced(GOOD).rstrip() + " Done.\n\nUsage:\n" + fenced("print(double(2))\n"),
        "```python\n" + GOOD.rstrip() + "```",
        "```python\n" + GOOD.rstrip() + "```\nUsage:\n```\ndouble(2)\n```",
        "```python\n" + GOOD.rstrip() + "``` Done.",
        "Here it is: " + fenced(GOOD),
        fenced(DOCUMENTED),
        fenced(DOCUMENTED.replace("    ", "  ")),
        DOCUMENTED,
        DOCUMENTED[DOCUMENTED.index("\n") + 1 :],
        fenced(GOOD).replace("```\n", " ```\n"),
        fenced("print('no'") + "Better:\n```python\n" + GOOD,
        "```python\nprint('never closed'\n```python\n" + GOOD + "```",
        fenced("    return 2 * x\n") + "Output:\n" + fenced("8\n", ""),
        GOOD + "\nUsage:\n" + fenced("double(2)\n"),
    ],
)
def test_fences_as_models_write_them(completion):
    assert result_of(completion) == 8


def test_blocks_keep_their_own_indentation_and_lose_that_of_the_list():
    assert [block.code for block in python_blocks("  - ```py\n    if x:\n        y\n    ```\n")] == ["if x:\n    y\n"]
    assert [block.code for block in python_blocks("so: ```py\n    y\n```")] == ["    y\n"]
    assert python_blocks("```text\n```python is a fence\n```\n") == []


@pytest.mark.parametrize(
    "completion",
    [
        fenced("import math\n") + "then\n" + fenced("def double(x):\n    return math.prod([2, x])\n"),
        fenced("def helper(x):\n    return x\n") + fenced(HELPED),
        fenced(HELPED) + "with\n" + fenced("def helper(x):\n    return x\n"),
        fenced("K = 1\ndef other(x):\n    return K * x\n")
        + fenced("def helper(x):\n    return other(x)\n")
        + fenced(HELPED),
        fenced("def helper(x):\n    return 1 / 0\n")
        + "No:\n"
        + fenced("def helper(x):\n    return x\n")
        + fenced(HELPED),
        fenced("from functools import (\n    lru_cache as cached,\n)\n") + fenced("@cached\n" + GOOD),
        fenced("@staticmethod\ndef helper(x):\n    return x\n") + fenced(HELPED),
        fenced("class Helper:\n    factor = 2\n") + fenced("def double(x):\n    return Helper.factor * x\n"),
    ],
)
def test_code_in_several_blocks_is_joined_by_what_the_function_needs(completion):
    assert result_of(completion) == 8


@pytest.mark.parametrize(
    "other",
    [
        "1 / 0\n",
        "x = int(input())\nprint(double(x))\n",
        "def broken(:\n",
        "x = '''never closed\n",
        "import a_module_that_is_not_there\n",
        "def double(x):\n    return 3\n",
        "result = double('example')\n",
        "def sum(values):\n    return 0\n",
    ],
)
def test_drafts_and_examples_in_other_blocks_do_not_spoil_the_answer(other):
    answer = fenced("def double(x):\n    'helper, broken'\n    result = sum([x, x])\n    return result\n")
    assert result_of(fenced(other) + answer) == 8
    if "def double" not in other:
        assert result_of(answer + fenced(other)) == 8


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\n" + GOOD,
        "# first\n'''Doc.'''\nfrom __future__ import (annotations,\n    division)\n"
        "from __future__ import generators # x\n" + GOOD,
        "from __future__ import annotations; FACTOR = 2\ndef double(x: Unknown):\n    return FACTOR * x\n",
    ],
)
@pytest.mark.parametrize("head", [HEAD, "from __future__ import division\nimport math\n" + HEAD])
def test_future_imports_come_before_the_heads_imports(code, head):
    assert result_of(fenced(code), head) == 8
    assert result_of(code, head) == 8


def test_a_future_import_that_python_would_refuse_is_refused():
    with pytest.raises(SyntaxError):
        result_of(fenced("import math\nfrom __future__ import annotations\n" + GOOD))


@pytest.mark.parametrize("prompt", ["double", "Write double.", "x = double", "double(x)"])
def test_a_prompt_that_does_not_define_the_function_is_no_head(prompt):
    assert program_head(None, prompt, "double") == ""


def test_names_that_count_as_defined():
    for code in (
        "class double:\n",
        "class double(Base):\n",
        "async def double():\n",
        "double: Callable = f\n",
        "double=f",
    ):
        assert defines(code, "double")
    for code in (
        "class doubled:\n",
        " def double():\n",
        "double == 3",
        "import double",
        "double(3) = 4",
        "def double2():",
    ):
        assert not defines(code, "double")


@pytest.mark.parametrize(
    ("text", "opened", "said"),
    [
        ("<think>a</think>b", False, "b"),
        ("a</think>b", False, "b"),
        ("a</think>b", True, "b"),
        ("<think>a</think>b<think>c</think>d", False, "d"),
        ("b", False, "b"),
        ("b", True, None),
        ("<think>a", False, None),
        ("\n <think>a", False, None),
        ("b<think>a", False, "b"),
        ("<think>a</think>b<think>c", False, "b"),
        ("<thinking>a</thinking>b", False, "b"),
        ("<reasoning>a", False, None),
        ("[THINK]a[/THINK]b", False, "b"),
        ("◁think▷a◁/think▷b", False, "b"),
        ("b◁think▷a", False, "b"),
        ("x[0]<thinking", False, "x[0]<thinking"),
        ("split('</think>')", False, "split('</think>')"),
        ("starts with `<think>`", False, "starts with `<think>`"),
    ],
)
def test_what_is_said_after_reasoning(text, opened, said):
    assert after_reasoning(text, opened) == said


@pytest.mark.parametrize("completion", ["<think>\n" + fenced(GOOD), "<think>\n" + GOOD, "<think>" + fenced(GOOD) * 2])
def test_a_draft_in_reasoning_that_never_ends_is_no_answer(completion):
    assert find_code(completion, "double") == ("", False)
    assert find_code(completion.replace("<think>", ""), "double", reasoning_opened=True) == ("", False)
    assert result_of(completion + "</think>" + fenced(GOOD)) == 8


def test_prompts_that_open_reasoning():
    user = [{"role": "user", "content": "2x? Think between <think>"}]
    assert opens_reasoning("2x?<|assistant|><think>\n")
    assert opens_reasoning(user, "<|user|>2x?<|assistant|><think>\n")
    assert opens_reasoning([*user, {"role": "assistant", "content": "<think>\nOkay, "}])
    assert not opens_reasoning("Reason in <think> and </think>.")
    assert not opens_reasoning(user)
    assert not opens_reasoning(user, "<|user|>Think between <think><|assistant|>")
    assert not opens_reasoning([*user, {"role": "assistant", "content": "<think>a</think>"}])


def test_hostile_text_is_read_in_linear_time():
    texts = [
        "```python\ndef double(x):\n" + "'''\n ```\n" * 100_000,
        "<think>" * 100_000,
        "x```\n" * 200_000,
        "1. " * 300_000,
        "from __future__ import a\ndef double(x):\n" * 20_000,
    ]
    inner = ["\\'" * 500_000, '"""' * 300_000, "a" * 10**6, "def f(" * 100_000, "@a\n" * 200_000, "x = (\n" * 100_000]
    texts += [fenced(f"{text}\n") + fenced(f"{GOOD}{text}\n") for text in inner]
    for text in texts:
        started = time.process_time()
        assemble(HEAD, text, "double")
        script(text)
        assert time.process_time() - started < 20.0, text[:40]  # a quadratic scan takes minutes
