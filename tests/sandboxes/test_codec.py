"""Values cross the boundary unchanged, subclasses become their base, and hostile bytes raise ValueError."""

import collections
import enum
import math
import random

import pytest

from sandboxes import codec

VALUES = [
    None, True, 0, -(10**40), 1.5, -0.0, 1e308, "", "\ud800 é \x00", b"\x00\xff", 1 + 2j, [], (), {}, set(),
    frozenset(),
    [1, [2, (3, {"a": {4}})]], {(1, 2): [3], None: 4, 1.5: "x"}, {frozenset({1}), (2,)}, {"t": [1]}, [{"d": 1}],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_round_trip_keeps_value_and_type(value):
    back = codec.decode(codec.encode(value, 20), 20)
    assert back == value
    assert type(back) is type(value)


def test_nan_and_infinities_survive():
    assert math.isnan(codec.decode(codec.encode(math.nan, 1), 1))
    assert codec.decode(codec.encode([math.inf, -math.inf], 2), 2) == [math.inf, -math.inf]


def test_subclasses_arrive_as_their_base_so_their_equality_is_gone():
    class Same(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    class Colour(enum.IntEnum):
        RED = 3

    point = collections.namedtuple("point", "x y")(1, 2)
    values = [Same(5), Colour.RED, point, collections.Counter("aa"), collections.OrderedDict(a=1)]
    back = codec.decode(codec.encode(values, 5), 5)
    assert back == [5, 3, (1, 2), {"a": 2}, {"a": 1}]
    assert [type(value) for value in back] == [int, int, tuple, dict, dict]


def test_foreign_objects_are_refused_or_become_opaque_and_opaque_equals_nothing():
    with pytest.raises(codec.NotData):
        codec.encode([object()], 5)
    opaque = codec.decode(codec.encode([object()], 5, opaque=True), 5)[0]
    for act in (
        lambda: opaque == 5,
        lambda: opaque != 5,
        lambda: not opaque,
        lambda: [opaque] == [5],
        lambda: opaque < 1,
    ):
        with pytest.raises(TypeError):
            act()


def test_depth_is_bounded_both_ways():
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(codec.NotData):
        codec.encode(deep, 60)
    with pytest.raises(ValueError, match="nested"):
        codec.decode(b"[" * 5000 + b"]" * 5000, 60)
    assert codec.decode(b'"' + b"[" * 5000 + b'"', 60) == "[" * 5000


@pytest.mark.parametrize(
    "data",
    [b"", b"[", b"{}", b'{"x":1}', b'{"t":1}', b'{"d":[[[],1]]}', b'{"d":[[1]]}', b'{"c":["a","b"]}', b'{"b":"zz"}',
     b'{"s":[[1]]}', b"\xff", b"9" * 10000, b'{"t":[1],"s":[2]}', b"[" * 300 + b"{" * 300],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_malformed_bytes_raise_value_error_only(data):
    with pytest.raises(ValueError):
        codec.decode(data, 60)


def test_random_bytes_never_raise_anything_else():
    generator = random.Random(0)
    alphabet = b'[]{}",:tsfdbco0123456789.eE-nulltruefalse\\u\x00\xff'
    for _ in range(20000):
        data = bytes(generator.choice(alphabet) for _ in range(generator.randrange(40)))
        try:
            codec.decode(data, 10)
        except ValueError:
            continue


def test_colliding_keys_are_refused_quickly_and_honest_big_sets_pass():
    colliding = b'{"s":[' + b",".join(b"%d" % ((2**61 - 1) * i) for i in range(30000)) + b"]}"
    with pytest.raises(ValueError, match="collide"):
        codec.decode(colliding, 5)
    honest = set(range(0, 10**7, 97))
    assert codec.decode(codec.encode(honest, 3), 3) == honest


def test_quotes_that_never_close_are_refused_in_one_pass():
    for tail in (b"", b"\\", b"\\\n"):
        with pytest.raises(ValueError, match="brackets"):  # from every quote anew it would take half an hour
            codec.decode(b"[" * 200 + b'"' + b'\\"' * 500_000 + tail, 60)


def test_opaques_are_found_wherever_they_can_be():
    opaque = codec.Opaque("x")
    assert all(map(codec.holds_opaque, [opaque, [1, (opaque,)], {"a": [{1: opaque}]}]))
    assert not codec.holds_opaque([1, (None, {"a"}), {"a": frozenset()}])
