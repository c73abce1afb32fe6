"""Arguments for a declared function, made from its JSON schema: the same ones every time."""

from __future__ import annotations

from typing import Any

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000001",
}
_MAX_DEPTH = 8


def arguments_for(schema: dict[str, Any] | None) -> dict[str, Any]:
    """Return arguments which fit the schema of a function's parameters."""
    if not schema:
        return {}
    value = _value("value", schema, schema, 0)
    return value if isinstance(value, dict) else {}


def _value(name: str, schema: Any, root: dict[str, Any], depth: int) -> Any:
    # A schema may refer to itself; the depth limit is what ends such a one.
    if depth > _MAX_DEPTH or not isinstance(schema, dict):
        return None
    schema = _resolved(schema, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        options = [o for o in schema.get(key) or [] if o != {"type": "null"}]
        if options:
            return _value(name, options[0], root, depth + 1)
    return _by_type(name, schema, root, depth)


def _by_type(name: str, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        return {key: _value(key, part, root, depth + 1) for key, part in properties.items()}
    if kind == "array":
        item = _value(name, schema.get("items") or {"type": "string"}, root, depth + 1)
        return [item] * max(1, int(schema.get("minItems", 1)))
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _text(name, schema)


def _number(schema: dict[str, Any]) -> Any:
    if "minimum" in schema:
        return schema["minimum"]
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + 1
    if "maximum" in schema:
        return min(1, schema["maximum"])
    return schema.get("multipleOf", 1)


def _text(name: str, schema: dict[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), f"{name}-1")
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema.get("maxLength", len(text)))]


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    merged = dict(schema)
    reference = merged.pop("$ref", None)
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = root
        for name in reference[2:].split("/"):
            target = target.get(name, {}) if isinstance(target, dict) else {}
        merged = {**target, **merged}
    for option in merged.pop("allOf", None) or []:
        usable = isinstance(option, dict) and option != schema
        part = _resolved(option, root) if usable else {}
        both = {**(merged.get("properties") or {}), **(part.get("properties") or {})}
        merged = {**part, **merged, **({"properties": both} if both else {})}
    return merged
