"""Templates reach the context and nothing else, and cost what they may."""

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.workflows.rendering import RenderError
from atomo_gql.service.workflows.filters import FILTERS
from atomo_gql.service.workflows.templates import Templates

SCOPE: dict[str, Any] = {
    "deal": {
        "id": 7,
        "name": "Ada",
        "owner": {"mail": "ada@example.org"},
        "tags": ["a", "b"],
        "note": None,
        "open": True,
        "odd key": 3,
        "7": "seven",
        "empty": [],
        "share": 2.25,
    },
    "lang": "name",
    "i": 1,
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ deal.id }}", 7),
        ("{{deal.tags}}", ["a", "b"]),
        ("{{ deal.note }}", None),
        ("{{ deal.open }}", True),
        ("{{ deal.owner }}", {"mail": "ada@example.org"}),
        ("{# why #}{{ deal.id }}", 7),
        (" {{ deal.id }}", " 7"),
        ("{{ deal.id }}\n", "7\n"),
        ("{{ deal.id }}{{ deal.id }}", "77"),
        ("{{ deal.name }} <{{ deal.owner.mail }}>", "Ada <ada@example.org>"),
        ("{{ deal.note }}|{{ deal.open }}|{{ deal.share }}|{{ deal.tags }}", '|true|2.25|["a","b"]'),
        ("{{ deal.tags[0] }}{{ deal.tags.1 }}{{ deal.tags[-1] }}{{ deal.tags[i] }}", "abbb"),
        ("{{ deal['odd key'] }}", 3),
        ("{{ deal[lang] }}", "Ada"),
        ("{{ deal[7] }}", "seven"),
        ("a\r\nb\r{{ deal.id\r\n }}\r\n", "a\r\nb\r7\r\n"),
        ("{{ 'a\rb' }}", "a\rb"),
        ("{{ '{{' }} deal.id }}", "{{ deal.id }}"),
        ("{{ '{%' }} if", "{% if"),
        ("{{ 1 }}", 1),
        ("{{ -1.5 }}", -1.5),
        ("{{ null }}", None),
        ("{{ [deal.id, {'name': deal.name}, true] }}", [7, {"name": "Ada"}, True]),
        ("{{ deal.nope | default('x') }}", "x"),
        ("{{ nope.at.all | default(deal.id) }}", 7),
        ("{{ deal.note | default('x') }}", None),
        ("{{ deal.note | default('x', true) }}", "x"),
        ("{{ deal.empty | first | default([]) }}", []),
        ("{{ deal.tags | length }}", 2),
        ("{{ deal.tags | last }}", "b"),
        ("{{ deal.tags | join(', ') }}", "a, b"),
        ("{{ deal.name | upper }}{{ deal.name | lower }}{{ ' x ' | trim }}", "ADAadax"),
        ("{{ deal.name | replace('A', 'I') }}", "Ida"),
        ("{{ 'a b/ü' | urlencode }}", "a%20b%2F%C3%BC"),
        ("{{ '12' | int }}", 12),
        ("{{ 12.9 | int }}", 12),
        ("{{ ' 1e3' | float }}", 1000.0),
        ("{{ deal.share | round }}", 2),
        ("{{ deal.share | round(1) }}", 2.2),
        ("{{ deal.id | string }}", "7"),
        ("{{ deal.name | tojson }}", '"Ada"'),
        ("{{ 'big' if deal.id > 5 else 'small' }}", "big"),
        ("{{ deal.note or deal.name }}", "Ada"),
        ("{{ deal.open and not deal.empty }}", True),
        ("{{ deal.nope is defined }}", False),
        ("{{ deal.note is none }}", True),
        ("{{ deal.open == 1 }}", False),
        ("{{ deal.owner != null }}", True),
        ({"{{ deal.id }}": ["{{ deal.id }}", 5, None]}, {"{{ deal.id }}": [7, 5, None]}),
    ],
)
def test_a_template_is_filled_in_from_the_context(template: Any, value: Any) -> None:
    templates = Templates()
    templates.check("payload", template)
    filled = templates.render(template, SCOPE)
    assert filled == value
    assert type(filled) is type(value)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ nope }}", 'nope is not in the context: there is no "nope"'),
        ("{{ deal.boss.id }}", 'deal.boss.id is not in the context: deal has no "boss"'),
        ("x {{ deal.owner.id.x }}", 'deal.owner.id.x is not in the context: deal.owner has no "id"'),
        ("{{ deal.name.id }}", 'deal.name.id is not in the context: deal.name is a string, and has no "id"'),
        ("{{ deal.note.id }}", 'deal.note.id is not in the context: deal.note is null, and has no "id"'),
        ("{{ deal.tags[2] }}", "deal.tags[2] is not in the context: deal.tags is a list of 2, and has no [2]"),
        ("{{ deal.tags.size }}", 'deal.tags is a list of 2, and has no "size"'),
        ("{{ deal[deal] }}", "deal is asked for an object, which is neither a key nor an index"),
        ("{{ deal[nope] }}", 'nope is not in the context: there is no "nope"'),
        ("{{ deal.id | upper }}", "the filter upper needs a string, not a number"),
        ("{{ deal.name | int }}", 'the filter int needs a number, not "Ada"'),
        ("{{ ('9' | replace('9', '99999999999999999999999')) | int }}", "a whole number beyond 64 bits"),
        ("{{ '1e999' | float }}", "must make a number that is finite"),
        ("{{ deal | join }}", "the filter join needs a list, not an object"),
        ("{{ deal.empty | first }}", "the filter first found nothing"),
        ("{{ deal.name | replace('', 'x') }}", "not an empty string"),
        ("{{ deal.id > deal.name }}", "must not compare a number and a string by size"),
        ("{{ deal == deal }}", "must not compare an object and an object"),
    ],
)
def test_what_cannot_be_filled_in_is_named(template: str, sentence: str) -> None:
    templates = Templates()
    templates.check("payload", template)
    with pytest.raises(RenderError) as error:
        templates.render({"url": [template]}, SCOPE)
    assert sentence in str(error.value)


REFUSED = [
    ("{{ ''.__class__.__mro__() }}", "must not call functions"),
    ("{{ ''.__class__.__mro__ }}", "must not reach for __mro__"),
    ("{{ x.__class__ }}", "must not reach for __class__; a field of that name is written ['__class__']"),
    ("{{ o.__init__.__globals__ }}", "must not reach for __globals__"),
    ("{{ range(10**9) }}", "must not call functions"),
    ("{{ cycler('a') }}", "must not call functions"),
    ("{{ ''.join(x) }}", "must not call functions"),
    ("{{ x | map(attribute='y') }}", 'knows no filter "map"'),
    ("{{ 'a' * 10**9 }}", "must not calculate"),
    ("{{ 2 ** 99999 }}", "must not calculate"),
    ("{{ 1 + 1 }}", "must not calculate"),
    ("{{ -x }}", "must not calculate"),
    ("{{ -true }}", "must not calculate"),
    ("{{ 'a' ~ 'b' }}", "must not join by ~"),
    ("{{ x[1:2] }}", "must not cut slices"),
    ("{{ (1, 2) }}", "must not hold tuples"),
    ("{{ x | attr('__class__') }}", 'knows no filter "attr"; there are default'),
    ("{{ x | format }}", 'knows no filter "format"'),
    ("{{ x | first(1) }}", "the filter first takes 0 arguments"),
    ("{{ x | default }}", "the filter default takes 1 to 2 arguments"),
    ("{{ x | default(other=1) }}", "the filter default takes 1 to 2 arguments, without names"),
    ("{{ x | replace(*y) }}", "the filter replace takes 2 arguments"),
    ("{{ x is divisibleby(3) }}", "whether a value is defined or is none"),
    ("{{ x in y }}", "may compare two values by =="),
    ("{{ 1 < x < 3 }}", "may compare two values by =="),
    ("{{ x if y }}", "must say what else"),
    ("{{ {x: 1} }}", "keys are strings in quotes"),
    ("{% for x in y %}{{ x }}{% endfor %}", "must not hold {% … %}"),
    ("{% set x = 1 %}", "must not hold {% … %}"),
    ("{% import 'os' as os %}", "must not hold {% … %}"),
    ("{%- macro x() %}{% endmacro %}", "must not hold {% … %}"),
    ("{% raw %}{{ x }}{% endraw %}", "must not hold {% … %}"),
    ("{% nonsense", "must not hold {% … %}"),
    ("{{", "must be one that can be read"),
    ("{{ }}", "must be one that can be read"),
    ("{{ x", "must be one that can be read"),
    ("{{ x } }", "must be one that can be read"),
    ("{{ (x }}", "must be one that can be read"),
    ("{{ 'x }}", "must be one that can be read"),
    ("{# x", "must be one that can be read"),
    ("{{ x; y }}", "must be one that can be read"),
    ("{{ '\\ud800' }}", "must not contain a NUL character or a lone surrogate"),
    ("{{ x['\\x00'] }}", "must not contain a NUL character or a lone surrogate"),
    ("{{ {'\\x00': 1} }}", "must not contain a NUL character or a lone surrogate"),
    ("{{ 99999999999999999999 }}", "whole numbers beyond 64 bits"),
    ("{{ " + "9" * 5_000 + " }}", "numbers beyond 64 bits"),
    ("{{ 1e999 }}", "numbers that are not finite"),
    ("{{ " + "(" * 30_000 + "x", "nested deeper than 20 brackets"),
    ("{{ " + "[" * 21 + "]" * 21 + " }}", "nested deeper than 20 brackets"),
    ("{{ " + "x[" * 1_000 + "0" + "]" * 1_000 + " }}", "nested deeper than 20 brackets"),
    ("{{" * 30_000, "nested deeper than 20 brackets"),
    ("{{ x" + "}" * 60_000 + "{{", "must be one that can be read"),
    ("{{ " + "not " * 30 + "x }}", "nested deeper than 20 expressions"),
    ("{{ " + "not " * 4_000 + "x }}", "must not be nested so deeply"),
    ("{{ " + "x if y else " * 900 + "z }}", "must not be nested"),
    ("{{ x" + "|upper" * 30 + " }}", "nested deeper than 20 expressions"),
    ("{{ a" + ".a" * 1_500 + " }}", "at most 1000 parts"),
    ("{{ a }}" * 1_001, "at most 1000 parts"),
    ("{{ a" + " .a" * 10_000 + " }}", "at most 10000 words and signs"),
    ("{{ x }}" + "a" * 70_000, "at most 65536 characters"),
    ("{{ x }}\r\x1c\x1d\x1e\x1f", "control characters"),
]


@pytest.mark.parametrize(("template", "rule"), REFUSED, ids=[f"{text[:40]!r}" for text, _ in REFUSED])
def test_what_a_template_must_not_say_is_refused_with_its_path(template: str, rule: str) -> None:
    templates = Templates()
    with pytest.raises(BadUserInput) as error:
        templates.check("steps[2].action.Job.payload", {"ok": "{{ x }}", "url": ["", template]})
    assert error.value.field == "steps[2].action.Job.payload.url[1]"
    assert error.value.detail.startswith("steps[2].action.Job.payload.url[1]: ")
    assert rule in error.value.detail
    with pytest.raises(RenderError):
        templates.render(template, {"x": "y"})


@pytest.mark.parametrize(
    "template",
    [
        "{{ x['__class__'] }}",
        "{{ x.keys }}",
        "{{ l.append }}",
        "{{ o.items }}",
        "{{ cycler }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ range }}",
        "{{ lipsum }}",
        "{{ namespace }}",
        "{{ config }}",
        "{{ scope }}",
        "{{ s[0] }}",
        "{{ l[true] }}",
    ],
)
def test_nothing_of_python_or_jinja_is_in_reach(template: str) -> None:
    with pytest.raises(RenderError, match="is not in the context"):
        Templates().render(template, {"x": 1, "s": "text", "l": [1, 2], "o": {"a": 1}})


@pytest.mark.parametrize(
    "value",
    [
        ["{{ big }}"] * 10_000,
        "{{ big }}" * 999,
        ["{{ many }}"] * 10_000,
        ["x{{ many }}"] * 10_000,
        ["{{ quoted | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson }}"] * 100,
        "{{ [big, big, big] | join | replace('x', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}",
        ["{{ big | upper | length }}"] * 10_000,
        "{{ [" + "big, " * 900 + "big] }}",
        ["{{ deep | tojson }}"],
    ],
)
def test_what_a_call_may_make_is_bounded_before_it_is_made(value: Any) -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    scope = {"big": "x" * 300_000, "many": [{"n": n} for n in range(20_000)], "quoted": '"' * 10_000, "deep": deep}
    templates = Templates(most_bytes=1_000_000)
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(RenderError, match=r"must not make more than \d+ characters|cannot be written as JSON"):
        templates.render(value, scope)
    took, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000
    assert took < 5  # seconds, while memory is traced


def test_a_budget_is_one_calls_and_counts_what_is_made() -> None:
    templates = Templates(most_bytes=10)
    for _ in range(3):
        assert templates.render(["{{ a }}{{ a }}", "x" * 1_000], {"a": "12345"}) == ["1234512345", "x" * 1_000]
    for value in (["{{ a }}{{ a }}", "{{ a }}"], "{{ a }}{{ a }}.", "{{ [a, 1] }}"):
        with pytest.raises(RenderError, match="must not make more than 10 characters"):
            templates.render(value, {"a": "12345"})


def test_values_nested_too_deeply_are_refused() -> None:
    value: Any = "{{ a }}"
    for _ in range(5_000):
        value = [value]
    with pytest.raises(RenderError, match="nested deeper than 250 levels"):
        Templates().render(value, {"a": 1})


@pytest.mark.parametrize(
    "value",
    [[f"{{{{ a{n} }}}}" for n in range(5_001)], [f"{{{{ a }}}}{'x' * 60_000}{n}" for n in range(5)]],
    ids=["parts", "characters"],
)
def test_the_templates_of_one_value_are_bounded_in_all(value: list[str]) -> None:
    templates = Templates()
    templates.check("payload", value[:4] * 5_000)
    with pytest.raises(BadUserInput, match="at most 262144 characters and 5000 parts in all") as error:
        templates.check("payload", value)
    assert error.value.field == "payload"


def test_what_is_kept_of_templates_is_bounded() -> None:
    templates = Templates()
    for n in range(5_000):
        templates.render(f"{{{{ a }}}}{n}", {"a": 1})
    for n in range(100):
        templates.render("{{ a }}" + "x" * 60_000 + str(n), {"a": 1})
    assert 0 < len(templates._kept) < 4_096
    assert sum(map(len, templates._kept)) < 16 * 1_048_576
    assert templates._kept_bytes <= 16 * 1_048_576


def test_each_filter_is_documented() -> None:
    from atomo_gql.service.workflows import filters

    assert filters.__doc__ is not None
    assert [name for name in FILTERS if f"`{name}" not in filters.__doc__] == []


strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00{}"))


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """JSON."""
    leaves = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    )
    return st.recursive(
        leaves | text, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4)
    )


@given(values(plain))
def test_a_value_without_braces_is_left_as_it_is(value: Any) -> None:
    templates = Templates()
    templates.check("payload", value)
    assert templates.render(value, {}) == value


@given(values(strings))
def test_a_template_alone_gives_any_value_back(value: Any) -> None:
    templates = Templates()
    assert templates.render("{{ v }}", {"v": value}) == value
    assert templates.render(["{{ v }}", "{{ a.b[0].c }}"], {"v": value, "a": {"b": [{"c": value}]}}) == [value, value]


@given(plain, plain, strings)
def test_text_around_a_template_is_left_as_it_is(before: str, after: str, value: str) -> None:
    if "\r" in before + after and all(sign in before + after for sign in "\x1c\x1d\x1e\x1f"):
        return
    assert Templates().render(before + "{{ v }}" + after, {"v": value}) == before + value + after


words = st.sampled_from(
    ["{{", "}}", " x ", ".", "[", "]", "(", ")", "{", "}", "'", '"', "|", "upper", "default", "0", "-", "not ", "is ",
     "if ", "else ", "{#", "#}", "{%", "%}", ",", ":", "==", "none", "defined", "\\", "\r", "\n", "~", "*", "9" * 30]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(words | st.characters(), max_size=25).map(lambda parts: "{{" + "".join(parts) + "}}"))
def test_any_text_is_filled_in_or_refused_in_a_sentence(text: str) -> None:
    templates = Templates()
    try:
        templates.check("payload", [text])
    except BadUserInput as refused:
        assert refused.field == "payload[0]"
        with pytest.raises(RenderError):
            templates.render(text, {"x": {"y": 1}})
        return
    try:
        templates.render(text, {"x": {"y": 1}})
    except RenderError as error:
        assert str(error)
