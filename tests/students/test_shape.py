"""How a cut is written, and what is said of one that cannot be read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rl_distill.config import ConfigError
from rl_distill.students.shape import Amount, Choice, StudentShapeConfig, parse_student_arch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50%", Choice("uniform", Amount(share=0.5))),
        ("0.25", Choice("uniform", Amount(share=0.25))),
        ("uniform:22", Choice("uniform", Amount(count=22))),
        ("block_influence:12.5%", Choice("block_influence", Amount(share=0.125))),
        ("learned", Choice("learned", Amount(share=0.5))),
        ("0,2,5", Choice("indices", Amount(share=0.5), (0, 2, 5))),
        ("3,", Choice("indices", Amount(share=0.5), (3,))),
    ],
)
def test_layers_are_read(text, expected):
    assert StudentShapeConfig(layers=text).choices() == {"layers": expected}


def test_other_dimensions_are_read_with_their_first_criterion():
    shape = StudentShapeConfig(heads="weight_variance:50%", ffn="0.5", hidden="384")
    assert shape.choices() == {
        "heads": Choice("weight_variance", Amount(share=0.5)),
        "ffn": Choice("activation_norm", Amount(share=0.5)),
        "hidden": Choice("activation_norm", Amount(count=384)),
    }
    assert shape.needing_text() == ["ffn", "hidden"]
    assert StudentShapeConfig(layers="0,3", ffn="magnitude:0.5").needing_text() == []


def test_amounts():
    assert [Amount(share=0.5).of(n, "x") for n in (1, 3, 4, 7)] == [1, 2, 2, 4]
    assert Amount(share=0.01).of(12, "x") == 1
    assert Amount(share=1.0).of(12, "x") == 12
    assert Amount(count=5).of(12, "x") == 5
    with pytest.raises(ConfigError, match="ffn: 13 are to be kept, the teacher has 12"):
        Amount(count=13).of(12, "ffn")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "22"}, "uniform:22"),
        ({"layers": "blok_influence:3"}, "no criterion 'blok_influence'"),
        ({"layers": "0,2,2"}, "must rise"),
        ({"layers": "2,0"}, "must rise"),
        ({"layers": "a,b"}, "cannot read 'a,b'"),
        ({"layers": "0%"}, "above 0"),
        ({"layers": "uniform:150%"}, "at most 100%"),
        ({"heads": "0"}, "at least 1"),
        ({"ffn": "half"}, "cannot read 'half'"),
        ({"ffn": "1,2"}, "for layers only"),
        ({"ffn": "learned:0.5"}, "no criterion 'learned'"),
        ({"hidden": ""}, "cannot read ''"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        StudentShapeConfig(**settings)
    assert "\n" not in str(caught.value)


def test_student_arch():
    assert parse_student_arch("teacher:50%") == StudentShapeConfig(layers="50%")
    assert parse_student_arch("teacher:block_influence:22") == StudentShapeConfig(layers="block_influence:22")
    assert parse_student_arch("teacher:layers=0,2,5;ffn=0.5; heads=weight_variance:2;") == StudentShapeConfig(
        layers="0,2,5", ffn="0.5", heads="weight_variance:2"
    )
    for wrong in ("Qwen/Qwen2.5-0.5B", "teacher:", "teacher:depth=3", "teacher:ffn=", "teacher:ffn=0.5;ffn=0.25"):
        with pytest.raises(ConfigError, match="student_arch"):
            parse_student_arch(wrong)


def test_arguments_and_shapes_need_no_torch():
    code = (
        "import sys, argparse; from rl_distill.students.command import add_arguments; "
        "from rl_distill.students import parse_student_arch; parse_student_arch('teacher:50%'); "
        "add_arguments(argparse.ArgumentParser()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
