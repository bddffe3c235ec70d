"""A constraint is refused where it cannot be compiled, admits nothing, or would be enforced in part."""

import json

import pytest

from sgl_small4.prompt.constraint import check_constraint
from sgl_small4.prompt.format import PromptError

STRING = {"type": "string"}


def tag(schema):
    return {"structures": [{"begin": "<f>", "schema": schema, "end": "</f>"}], "triggers": ["<f"]}


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("regex", "(", "parenthesis"),
        ("regex", "(?<=a)b", "Lookbehind"),
        ("regex", r"a\1", "Backreference"),
        ("regex", "", "empty"),
        ("regex", r"a\x00", "no character"),
        ("regex", r"\u0000a", "no character"),
        ("regex", r"\ud800", "no character"),
        ("regex", "a\0b", "no character"),
        ("ebnf", 'root ::= root "a"', "admits no text"),
        ("ebnf", "root ::= nothing", "not defined"),
        ("ebnf", 'root ::= "\\x00"', "no character"),
        ("json_schema", "{", "Expecting"),
        ("json_schema", "5", "object or bool"),
        ("json_schema", '{"type": "strng"}', "strng"),
        ("json_schema", '{"$ref": "#"}', "admits no text"),
        ("json_schema", '{"$ref": "#/$defs/nowhere"}', "nowhere"),
        ("json_schema", '{"$ref": "https://example.com/schema"}', "outside the schema"),
        ("json_schema", '{"type": "string", "pattern": "(?=a)"}', "ook"),
        ("json_schema", '{"type": "string", "pattern": "\\\\x00"}', "no character"),
        ("json_schema", '{"type": "string", "enum": [1, 2]}', "not of type string"),
        ("json_schema", '{"allOf": [{"type": "integer"}, {"type": "string"}]}', "allOf of several"),
        ("json_schema", '{"type": "object", "anyOf": [{"required": ["a"]}]}', "type beside anyOf"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ("json_schema", '{"items":' * 200 + "{}" + "}" * 200, "nested deeper"),
        ("structural_tag", "[]", "an object"),
        ("structural_tag", json.dumps(tag({"type": "strng"})), "strng"),
        ("structural_tag", json.dumps(tag({"type": "array", "uniqueItems": True})), "uniqueItems"),
        ("structural_tag", json.dumps({"format": {"type": "json_schema", "json_schema": {"$ref": "#"}}}), "admits no"),
        ("structural_tag", json.dumps({"structures": [1], "triggers": ["<"]}), "list of objects"),
        ("structural_tag", json.dumps({"structures": [], "triggers": 5}), "list of texts"),
        ("structural_tag", json.dumps({**tag(STRING), "triggers": ["other"]}), "trigger"),
        ("structural_tag", json.dumps({"format": {"type": "bogus"}}), "bogus"),
    ],
)
def test_a_constraint_is_refused_by_name_and_reason(kind, text, reason):
    with pytest.raises(PromptError, match=f"The {kind} cannot be compiled") as refusal:
        check_constraint({kind: text})
    sentence = str(refusal.value)
    assert reason in sentence
    assert "/project/" not in sentence and "\n" not in sentence.strip()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("regex", "yes|no"),
        ("regex", r"\d{3}-\d{4}"),
        ("ebnf", 'root ::= "a" root | "b"'),
        ("json_schema", "$$ANY$$"),
        ("json_schema", "true"),
        ("json_schema", '{"type": "string", "description": "not \\\\x00 or \\\\0", "enum": ["a", "\\ud83d\\ude00"]}'),
        ("json_schema", '{"properties": {"type": {"type": "string"}, "anyOf": {"type": "integer"}}}'),
        ("json_schema", '{"allOf": [{"$ref": "#/$defs/a"}], "title": "A", "$defs": {"a": {"type": "integer"}}}'),
        ("json_schema", '{"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "x"}'),
        ("json_schema", '{"type": "object", "properties": {"next": {"$ref": "#"}}}'),
        ("json_schema", '{"type": "number", "enum": [1, 2.5]}'),
        ("structural_tag", json.dumps(tag({"type": "object"}))),
        ("structural_tag", json.dumps({"format": {"type": "const_string", "value": "a"}})),
        ("structural_tag", json.dumps({"format": {"type": "token", "token": 90_000}})),
    ],
)
def test_what_compiles_passes(kind, text):
    check_constraint({kind: text})
