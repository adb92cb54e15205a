"""The schema as a promise: it is what it is printed as, every element says what it is, and nothing is broken unsaid."""

from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
    find_breaking_changes,
    specified_scalar_types,
)

from atomo_gql.api.graphql.schema import core_schema, schema_text

ROOT = Path(__file__).parents[2]


def test_the_printed_schema_is_the_schema() -> None:
    assert (ROOT / "schema.graphql").read_text() == schema_text(), "run: make schema"


def test_every_element_says_what_it_is() -> None:
    silent = []
    for name, type_ in core_schema().type_map.items():
        if name.startswith("__") or name in specified_scalar_types:
            continue
        if not type_.description:
            silent.append(name)
        if isinstance(type_, GraphQLEnumType):
            silent += [f"{name}.{value}" for value, known in type_.values.items() if not known.description]
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            for field_name, field in type_.fields.items():
                if not field.description:
                    silent.append(f"{name}.{field_name}")
                arguments = getattr(field, "args", {})
                silent += [f"{name}.{field_name}({a})" for a, known in arguments.items() if not known.description]
    assert silent == []


def unsaid(old: str, new: str, changelog: str) -> list[str]:
    """The breaking changes from one schema to another that the changelog's unreleased part does not name."""
    part = changelog.partition("## [Unreleased]")[2].partition("\n## [")[0]
    changes = find_breaking_changes(build_schema(old), build_schema(new))
    return [c.description for c in changes if c.description.rstrip(".") not in part]


def test_a_breaking_change_is_named_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    old = "type Query { job(id: ID!): String  gone: Int }"
    new = "type Query { job(id: ID!, more: Int!): String }"
    assert unsaid(old, old, changelog) == []
    [first, second] = unsaid(old, new, changelog)
    assert unsaid(old, new, f"## [Unreleased]\n- {first}\n- {second}\n\n## [0.1]\n") == []
    assert unsaid(old, new, f"## [Unreleased]\n\n## [0.1]\n- {first}\n- {second}\n") == [first, second]
    # The schema of the newest release; a release copies schema.graphql there.
    released = (ROOT / "tests" / "graphql" / "released.graphql").read_text()
    assert unsaid(released, schema_text(), changelog) == []
