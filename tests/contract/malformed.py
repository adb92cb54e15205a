"""Every way in which a field of a body can be wrong, generated from the shapes of `bodies.py`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import inspect

from atomo_gql.api.rest.routes import ROUTES
from tests.contract.table import SHAPED, Row

# What msgspec cannot know of a shape. A text field that is in none of these has to find its place here.
NAMES = {"queue": 200, "kind": 200, "name": 200, "queues[0]": 200, "tenantId": 200, "idempotencyKey": 512}
NAMES |= {"kinds[0]": 200, "requestId": 200, "model": 200, "id": 512, "origin": 512, "eventId": 311}
TEXTS = {"leaseId": 1_000, "message": 2_000, "reason": 1_000}  # too long is refused, blank is not
CUT = {"error"}  # too long is cut, so that no report is lost
CHOICES = {"event": "must be one of created, updated, deleted"}
RANGES = {"maxAttempts": (1, 1_000), "priority": (-32_767, 32_767), "timeoutSecs": (1, 604_800)}
RANGES |= {"graceSecs": (0, 2_592_000)}
CLAMPED = {"capacity", "visibilitySecs", "waitSecs", "percent", "retryAfterSecs"}
MOST = {"queues": 1_000, "jobs": 1_000, "kinds": 1_000, "reports": 1_000}

NOT_JSON = "the body must be JSON"  # such a refusal cannot name a field
SURROGATE = "must not contain a lone surrogate"  # and such a one names the field of the body that it is in
_VALUES = {"text": '"x"', "number": "5", "fraction": "1.5", "boolean": "true", "array": "[]", "object": "{}"}
_FITS: dict[type[inspect.Type], set[str]] = {
    inspect.StrType: {"text"},
    inspect.DateTimeType: set(),
    inspect.IntType: {"number"},
    inspect.FloatType: {"number", "fraction"},
    inspect.BoolType: {"boolean"},
    inspect.ListType: {"array"},
    inspect.StructType: {"object"},
    inspect.DictType: {"object"},
    inspect.AnyType: set(_VALUES) | {"null"},
    inspect.RawType: set(_VALUES) | {"null"},
}
_NUMERIC = (inspect.IntType, inspect.FloatType, inspect.AnyType)
BODIES: dict[str, tuple[bytes, str]] = {  # around or instead of %b, a body that would do
    "empty": (b"", NOT_JSON),
    "no JSON": (b"queue=q", NOT_JSON),
    "cut off": (b"[%b", "the body must be"),
    "with a byte order mark": (b"\xef\xbb\xbf%b", NOT_JSON),
    "with a text after it": (b"%b {}", NOT_JSON),
    "in UTF-16": (b"\xff\xfe{\x00}\x00", NOT_JSON),
    "an array": (b"[%b]", "the body must be a JSON object"),
    "null": (b"null", "the body must be a JSON object"),
    "a number": (b"1", "the body must be a JSON object"),
    "a text": (b'"a"', "the body must be a JSON object"),
    "nested too deep": (b"[" * 100_000 + b"%b" + b"]" * 100_000, "the body must"),
}
UNKNOWN: dict[str, tuple[bytes, str]] = {  # the value of a field that no shape has
    "not UTF-8": (b'"\xff"', NOT_JSON),
    "an encoded surrogate": (b'"\xed\xa0\x80"', NOT_JSON),
    "a lone surrogate": (b'"\\ud800"', SURROGATE),
    "NaN": (b"NaN", NOT_JSON),
    "a raw control character": (b'"\x00"', NOT_JSON),
    "nested too deep": (b"[" * 100_000 + b"]" * 100_000, "the body must not be nested deeper"),
}


class Fault(NamedTuple):
    """What can be wrong with a field."""

    field: str
    kind: str
    raw: str | None  # its JSON; None: it is left out
    rule: str  # what the refusal says


_DEEPEST = '{"a":[' * 125 + "%s" + "]}" * 125
_DEEP = '{"a":[' * 120 + "%s" + "]}" * 120
_ANY = [
    _DEEPEST % "1",
    _DEEPEST % '"\\\\u0000"',
    f"[{2**64 - 1}, {-(2**63)}, 1e308, -1e-308, 0.1]",
    '{"": []}',
    "false",
]
_CLAMPED = [f"{-(10**30)}", "0", f"{10**30}"]
_GOOD: dict[str, list[str]] = {  # the JSON of values that are still taken, by field
    **{name: [f'"{"😀" * most}"', '" x"'] for name, most in (NAMES | {"message": 2_000, "reason": 1_000}).items()},
    "queues": [json.dumps([f"q{n}" for n in range(1_000)]), f'["{"é" * 200}"]', '["*", "a"]'],
    "jobs": [json.dumps([{"queue": "q", "kind": "k"}] * 1_000)],
    "error": [f'"{"x" * 70_000}"', '""', '" "'],
    "leaseId": [],
    **{name: [f"{least}", f"{most}"] for name, (least, most) in RANGES.items()},
    **dict.fromkeys(("capacity", "visibilitySecs"), _CLAMPED),
    "waitSecs": [*_CLAMPED, "-1e300", "0.5"],
    "retryAfterSecs": [*_CLAMPED, "-1e300", "1e300", "0.5"],
    "percent": [*_CLAMPED, "1e308", "-0.5"],
    **{name: ["true", "false"] for name in ("retryable", "skip")},
    "event": ['"updated"', '"deleted"'],
    "previousData": ["{}", _DEEP % "1"],
    "RecordBody.data": [*_ANY[2:], _DEEP % "1"],  # it goes into payloads
    **dict.fromkeys(("payload", "data", "result"), _ANY),
    "reports": ["[{}, 7, null]"],  # each entry has an outcome of its own
    "kinds": [json.dumps([f"k{n}" for n in range(1_000)]), f'["{"é" * 200}", "*"]'],
    "expiresAt": ['"9000-01-01T00:00:00Z"'],
    "deadline": ['"1970-01-01T00:00:00Z"', '"9000-01-01T00:00:00Z"'],
    "runAt": ['"1970-01-01T00:00:00Z"', '"9000-01-01T00:00:00Z"', '"2030-01-01t02:00:00.123456+14:00"'],
}


@dataclass(frozen=True)
class Case:
    """A body that is in order but for one field."""

    row: Row
    place: str  # the field of the body that is replaced
    fault: Fault  # the field at fault lies at that place or within

    def __str__(self) -> str:
        return f"{self.row} {self.fault.field} {self.fault.kind}"

    def body(self, fitting: dict[str, Any]) -> bytes:
        """The bytes, from a body that would do."""
        return _replaced(fitting, self.place, self.fault.raw).encode()


def cases() -> Iterator[Case]:
    """All of them, route by route."""
    for row in SHAPED:
        shape = ROUTES[row.path][row.method].shape
        for place, fault in _of_struct(inspect.type_info(shape)):
            yield Case(row, place, fault)


def goods() -> Iterator[Case]:
    """The last values that are still taken, by field; and null, wherever a field may be left out."""
    for row in SHAPED:
        shape = inspect.type_info(ROUTES[row.path][row.method].shape)
        assert isinstance(shape, inspect.StructType)
        for field in shape.fields:
            name = field.encode_name
            good = _GOOD.get(f"{shape.cls.__name__}.{name}") or _GOOD[name]
            for raw in good if field.required else [*good, "null"]:
                yield Case(row, name, Fault(name, raw if len(raw) < 30 else f"{raw[:12]}… of {len(raw)}", raw, ""))


def _of_struct(shape: inspect.Type) -> Iterator[tuple[str, Fault]]:
    """Each fault, and the field of this struct that it replaces."""
    assert isinstance(shape, inspect.StructType)
    for field in shape.fields:
        name = field.encode_name
        if field.required:
            yield name, Fault(name, "missing", None, "is required")
        for fault in _of_type(name, field.type):
            yield name, fault


def _of_type(name: str, declared: inspect.Type) -> Iterator[Fault]:
    declared = _plain(declared)
    types = [_plain(t) for t in declared.types] if isinstance(declared, inspect.UnionType) else [declared]
    [main] = [t for t in types if not isinstance(t, inspect.NoneType)]
    for kind, raw in (_VALUES if len(types) > 1 else {**_VALUES, "null": "null"}).items():
        if kind not in _FITS[type(main)]:
            yield Fault(name, f"of type {kind}", raw, "")
    for kind, raw in {"NaN": "NaN", "infinite": "-Infinity", "cut off": "-"}.items():
        yield Fault(name, kind, raw, NOT_JSON)
    yield Fault(name, "a lone surrogate", '"\\ud800"', SURROGATE)
    if not (isinstance(main, inspect.ListType) and isinstance(main.item_type, inspect.RawType)):
        yield Fault(
            name, "nested too deep", "[" * 300 + "]" * 300, "deeper" if isinstance(main, inspect.AnyType) else ""
        )
    if isinstance(main, _NUMERIC):
        yield Fault(name, "over the range of doubles", "1e400", "out of range")
        yield Fault(name, "of 5000 digits", "9" * 5_000, "out of range")
    if more := _BY_TYPE.get(type(main)):
        yield from more(name, main)


def _of_text(name: str, _: inspect.Type) -> Iterator[Fault]:
    if name in CHOICES:
        for kind, raw in {"empty": '""', "with a NUL": '"a\\u0000b"', "in capitals": '"CREATED"'}.items():
            yield Fault(name, kind, raw, CHOICES[name])
        return
    yield Fault(name, "with a NUL", '"a\\u0000b"', "must not contain a NUL")
    if name not in CUT:
        most = NAMES.get(name) or TEXTS[name]
        yield Fault(name, "too long", '"%s"' % ("x" * (most + 1)), f"at most {most} characters, not {most + 1}")
    if name in NAMES:
        yield Fault(name, "empty", '""', "must not be blank")
        yield Fault(name, "blank", '" \\t\\u00a0 "', "must not be blank")
        yield Fault(name, "with a line break", '"a\\nb"', "control characters")
    if name == "queue":
        yield Fault(name, "every queue", '"*"', "must name one queue")


def _of_whole_number(name: str, _: inspect.Type) -> Iterator[Fault]:
    if name in RANGES:
        least, most = RANGES[name]
        for value in (least - 1, most + 1, -(10**30), 10**30):
            yield Fault(name, f"{value}", str(value), f"from {least} to {most}")
    else:
        assert name in CLAMPED


def _of_anything(name: str, _: inspect.Type) -> Iterator[Fault]:
    for kind, raw in {"": "%s", " in a list": "[[%s]]", " in an object": '{"a": {"b": %s}}'}.items():
        yield Fault(name, f"with a NUL{kind}", raw % '"a\\u0000b"', "NUL")
        yield Fault(name, f"with 2^64{kind}", raw % 2**64, "64 bits")
        yield Fault(name, f"with -2^63-1{kind}", raw % (-(2**63) - 1), "64 bits")
        yield Fault(name, f"with 1e400{kind}", raw % "-1e400", "out of range")
        yield Fault(name, f"with a lone surrogate{kind}", raw % '"\\udc00"', SURROGATE)
    yield Fault(name, "with a NUL in a key", '{"a\\u0000b": 1}', "NUL")
    yield Fault(name, "with a lone surrogate in a key", '{"\\ud83d": 1}', SURROGATE)
    yield Fault(name, "nested one level too deep", "[" * 251 + "]" * 251, "nested deeper")
    yield Fault(name, "objects nested too deep", '{"a":' * 300 + "1" + "}" * 300, "nested deeper")
    yield Fault(name, "nested too deep to be read", "[" * 100_000 + "]" * 100_000, "the body must not be nested deeper")


def _of_object(name: str, _: inspect.Type) -> Iterator[Fault]:
    for fault in _of_anything(name, _):
        yield fault if fault.raw and fault.raw[0] == "{" else fault._replace(raw=f'{{"a": {fault.raw}}}')


def _of_moment(name: str, _: inspect.Type) -> Iterator[Fault]:
    for text in ("", "tomorrow", "2030-02-30T00:00:00Z", "2030-01-01 25:00:00Z", "a\\u0000b"):
        yield Fault(name, f"{text or 'empty'!r}", f'"{text}"', "RFC 3339")
    yield Fault(name, "without its offset", '"2030-01-01T00:00:00"', "offset")
    for text in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"):
        yield Fault(name, text, f'"{text}"', "between the years")


def _of_list(name: str, kind_of: inspect.Type) -> Iterator[Fault]:
    assert isinstance(kind_of, inspect.ListType)
    item = _plain(kind_of.item_type)
    yield Fault(name, "empty", "[]", "must")
    if isinstance(item, inspect.StructType):
        yield Fault(name, "too many", json.dumps([_least(item)] * (MOST[name] + 1)), str(MOST[name]))
        for place, fault in _of_struct(item):
            inner = _replaced(_least(item), place, fault.raw)
            yield fault._replace(field=f"{name}[1].{fault.field}", raw=f"[{json.dumps(_least(item))}, {inner}]")
    elif isinstance(item, inspect.RawType):
        yield Fault(name, "too many", json.dumps([{}] * (MOST[name] + 1)), str(MOST[name]))
    else:
        yield Fault(name, "too many", json.dumps([f"q{n}" for n in range(MOST[name] + 1)]), str(MOST[name]))
        for fault in _of_type(f"{name}[0]", item):
            yield fault._replace(raw=f"[{fault.raw}]")


def _replaced(fitting: dict[str, Any], place: str, raw: str | None) -> str:
    """The JSON of an object, one field replaced or left out."""
    parts = {name: json.dumps(value) for name, value in fitting.items() if name != place}
    if raw is not None:
        parts[place] = raw
    return "{%s}" % ", ".join(f'"{name}": {value}' for name, value in parts.items())


def _least(shape: inspect.StructType) -> dict[str, str]:
    """The least body of a shape whose required fields are names."""
    return {field.encode_name: "q" for field in shape.fields if field.required}


def _plain(kind_of: inspect.Type) -> inspect.Type:
    return kind_of.type if isinstance(kind_of, inspect.Metadata) else kind_of


_BY_TYPE: dict[type[inspect.Type], Any] = {
    inspect.StrType: _of_text,
    inspect.IntType: _of_whole_number,
    inspect.AnyType: _of_anything,
    inspect.DictType: _of_object,
    inspect.DateTimeType: _of_moment,
    inspect.ListType: _of_list,
}
