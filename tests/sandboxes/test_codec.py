"""Values cross the boundary unchanged, subclasses become their base, and hostile bytes raise ValueError."""

import array
import collections
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import random
import types
import uuid

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

    class Liar(dict):
        def items(self):
            return [("a", 2)]

    values = [Same(5), Colour.RED, Liar(a=1)]
    back = codec.decode(codec.encode(values, 5), 5)
    assert back == [5, 3, {"a": 1}]
    assert [type(value) for value in back] == [int, int, dict]


def test_foreign_objects_are_refused_unless_something_stands_for_them():
    with pytest.raises(codec.NotData):
        codec.encode([object()], 5)
    sent = codec.encode([object()], 5, lambda value, *_: [7, "object"])
    with pytest.raises(ValueError, match="unknown tag"):
        codec.decode(sent, 5)
    assert codec.Decoder(lambda body: tuple(body)).decode(sent, 5) == [(7, "object")]


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


POINT = collections.namedtuple("POINT", "x y")


@pytest.mark.parametrize(
    "value",
    [
        fractions.Fraction(3, 2), decimal.Decimal("1.50"), decimal.Decimal("NaN"), datetime.date(2024, 2, 29),
        datetime.datetime(2024, 3, 31, 2, 30, tzinfo=datetime.UTC, fold=1), datetime.time(1, 2, 3, 4),
        datetime.timedelta(days=-1, microseconds=5), datetime.timezone(datetime.timedelta(hours=2), "here"),
        collections.deque([1, [2]], maxlen=3), collections.Counter("aab"), collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, {1: [2]}), POINT(1, [2]), range(1, 9, 2), slice(1, None), ..., bytearray(b"a"),
        {1: 2}.keys(), {1: 2}.items(), uuid.UUID(int=5), pathlib.PurePosixPath("/a"), array.array("d", [1.5]),
        10**5736, -(10**5736), [10**9000, {"a": 2**20000}], int, type(None), types.SimpleNamespace(a=1),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_value_types_of_the_library_travel(value):
    back = codec.decode(codec.encode(value, 20), 20)
    assert type(back).__name__ == type(value).__name__
    assert back == value or str(back) == str(value) == "NaN"


def test_a_default_dict_keeps_its_factory_and_a_queue_its_bound():
    back = codec.decode(codec.encode([collections.defaultdict(int), collections.deque([1], 1)], 9), 9)
    assert (back[0]["new"], back[1].maxlen) == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
     '{"v":["date",2024,13,1]}', '{"v":["fraction",1,0]}', '{"v":["zoneinfo","../../etc/passwd"]}',
     '{"v":["type","eval"]}',
     '{"v":["namedtuple","a b",{"t":["import os"]},{"t":[1]}]}',
     '{"v":["nothing"]}', '{"v":[]}', '{"r":[0]}', '{"r":[-1]}',
     '{"k":[1,"object","A","solution"]}', '{"v":["decimal",5]}', '{"v":["timezone",{"v":["timedelta",99,0,0]},"x"]}'],
)  # fmt: skip
def test_forged_values_raise_value_error_only(text):
    with pytest.raises(ValueError):
        codec.decode(text.encode(), 20)
