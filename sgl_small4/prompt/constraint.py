"""Whether a request's constraint can be compiled, said before the request is scheduled.

The scheduler compiles constraints too, but what it finds reaches a stream after its 200. Here a constraint is only
parsed, without the vocabulary, which takes milliseconds; xgrammar accepts and refuses alike in both.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import xgrammar
from sglang.srt.constrained.json_schema_validation import UnsupportedJSONSchemaFeature, validate_xgrammar_json_schema
from xgrammar import StructuralTag

from sgl_small4.prompt.format import PromptError

KINDS = ("json_schema", "regex", "ebnf", "structural_tag")
MAX_DEPTH = 100  # xgrammar's own bound for tags; a schema of 1,000 levels takes it 40 s
ANY_JSON = "$$ANY$$"  # SGLang's word for a schema that admits every JSON value

# What a schema's combinations may not stand beside: words that constrain, other than those that only describe.
CONSTRAINING = frozenset(
    "type properties required items prefixItems additionalProperties patternProperties enum const pattern minimum "
    "maximum exclusiveMinimum exclusiveMaximum minLength maxLength minItems maxItems minProperties "
    "maxProperties".split()
)
NAMED_BY_USERS = ("properties", "patternProperties", "$defs", "definitions", "const", "default", "examples")
JSON_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
# Characters that no reply can hold: a NUL, which xgrammar 0.2.7 crashes on, and halves of a surrogate pair.
UNWRITABLE = re.compile("[\\0\\ud800-\\udfff]")
UNWRITABLE_ESCAPE = re.compile(r"\\(?:x00|u0000|u\{0+\}|0(?!\d)|u[dD][89a-fA-F])")
# Bytes as a vocabulary: a grammar's first characters can be told from it as from any other.
BYTES = xgrammar.TokenizerInfo(
    [b"", *(bytes([byte]) for byte in range(1, 256)), b"</s>"], xgrammar.VocabType.RAW, stop_token_ids=[256]
)

# Where xgrammar's sources say which of their lines raised an error.
SOURCE_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ")


def check_constraint(sampling_params: Mapping[str, Any]) -> None:
    """Raise PromptError, naming the constraint and what is wrong with it, when it cannot be compiled."""
    for kind in KINDS:
        text = sampling_params.get(kind)
        if isinstance(text, str) and (reason := _refusal(kind, text)):
            raise PromptError(f"The {kind} cannot be compiled: {reason}")


@lru_cache(maxsize=1)
def _compiler() -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(BYTES, cache_enabled=False)


@lru_cache(maxsize=1024)
def _refusal(kind: str, text: str) -> str | None:
    try:
        _parse(kind, text)
    except (ValueError, RuntimeError, RecursionError, UnsupportedJSONSchemaFeature) as error:
        reason = SOURCE_PLACE.sub("", str(error)).strip()
        return reason if reason.endswith(".") else f"{reason}."
    return None


def _parse(kind: str, text: str) -> None:
    if not text:
        raise ValueError("it is empty")
    if kind == "regex":
        _check_start(_regex(text))
    elif kind == "ebnf":
        _check_text(text, escapes=True)
        _check_start(xgrammar.Grammar.from_ebnf(text))
    elif text != ANY_JSON:
        parsed = json.loads(text)
        _check_json(parsed)
        if kind == "json_schema":
            _check_schema(parsed)
        elif not isinstance(parsed, dict):
            raise ValueError("a structural tag is an object")
        else:
            _check_tag(parsed)


def _check_schema(schema: object) -> None:
    validate_xgrammar_json_schema(schema)
    _check_start(xgrammar.Grammar.from_json_schema(json.dumps(schema)))


def _check_tag(tag: dict[str, Any]) -> None:
    """A structural tag in xgrammar's form (`format`) or in SGLang's older one (`structures` and `triggers`)."""
    for _, key, value in _nodes(tag):
        if key in ("schema", "json_schema") and isinstance(value, dict | bool):
            _check_schema(value)
    if tag.get("structures") is None:
        xgrammar.Grammar.from_structural_tag(json.dumps(tag))
        return
    structures, triggers = tag["structures"], tag.get("triggers")
    if not isinstance(triggers, list) or not all(isinstance(trigger, str) for trigger in triggers):
        raise ValueError("triggers must be a list of texts")
    if not isinstance(structures, list) or not all(map(_is_structure, structures)):
        raise ValueError("structures must be a list of objects with begin, schema and end")
    items = [
        xgrammar.StructuralTagItem(begin=one["begin"], schema=json.dumps(one.get("schema") or {}), end=one["end"])
        for one in structures
    ]
    xgrammar.Grammar.from_structural_tag(StructuralTag.from_legacy_structural_tag(items, triggers))


def _is_structure(one: object) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("begin"), str)
        and isinstance(one.get("end"), str)
        and isinstance(one.get("schema"), dict | None)
    )


def _check_start(grammar: xgrammar.Grammar) -> None:
    """Refuse a grammar that admits nothing at all, such as a rule that only leads to itself."""
    matcher = xgrammar.GrammarMatcher(_compiler().compile_grammar(grammar))
    mask = xgrammar.allocate_token_bitmask(1, BYTES.vocab_size)
    matcher.fill_next_token_bitmask(mask)
    if not mask.any():
        raise ValueError("it admits no text")


def _regex(pattern: str) -> xgrammar.Grammar:
    _check_text(pattern, escapes=True)
    return xgrammar.Grammar.from_regex(pattern)


def _check_text(text: str, escapes: bool = False) -> None:
    if found := UNWRITABLE.search(text) or (escapes and UNWRITABLE_ESCAPE.search(text)):
        raise ValueError(f"{found[0]!r} stands for no character that a reply can hold")


def _check_json(parsed: object) -> None:
    """What xgrammar lets pass without enforcing it, takes too long for, or crashes on."""
    for depth, key, value in _nodes(parsed):
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        _check_text(key)
        if isinstance(value, str):
            _check_text(value)
        if key == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise ValueError(
                f"$ref {value!r:.80} points outside the schema; only references within it (#/..) are known"
            )
        if key == "pattern" and isinstance(value, str):
            _regex(value)  # inside a schema xgrammar lets look-ahead pass
        if isinstance(value, dict) and key not in NAMED_BY_USERS:
            _check_combination(value)


def _check_combination(schema: dict[str, Any]) -> None:
    """Of a combination and what stands beside it, xgrammar enforces one alone."""
    combined = [word for word in ("allOf", "anyOf", "oneOf", "$ref") if word in schema]
    beside = sorted((CONSTRAINING & schema.keys()) | set(combined[1:]))
    if combined and beside:
        raise ValueError(f"{beside[0]} beside {combined[0]} would not be enforced; put it into the branches")
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1:
        raise ValueError("allOf of several schemas would not be enforced; write them as one")
    kind, values = schema.get("type"), schema.get("enum")
    if isinstance(kind, str) and kind in JSON_TYPES and isinstance(values, list):
        for value in values:
            if not isinstance(value, JSON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
                raise ValueError(f"enum holds {json.dumps(value):.80}, which is not of type {kind}")


def _nodes(parsed: object) -> Iterator[tuple[int, str, object]]:
    """Every value of a JSON document, with its depth and the key that it stands under."""
    stack: list[tuple[int, str, object]] = [(0, "", parsed)]
    while stack:
        depth, key, value = node = stack.pop()
        yield node
        if isinstance(value, dict):
            stack += ((depth + 1, str(name), child) for name, child in value.items())
        elif isinstance(value, list):
            stack += ((depth + 1, "", child) for child in value)
