"""Parameters that are given as a JSON schema, and arguments checked against them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from runlane.tools.arguments import TOO_LARGE, InvalidArguments, path, read_object, unknown

_SHOWN = 200


@dataclass(frozen=True)
class JsonSchema:
    """A JSON schema (draft 2020-12) of an object, checked by `checked`."""

    schema: Mapping[str, Any]

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> "JsonSchema":
        """Take a schema; parameters that it doesn't name are refused, unless it says otherwise.

        Raises:
            ValueError: it is no schema of an object, or refers outside itself.
        """
        schema = {"type": "object", "properties": {}, "additionalProperties": False, **given}
        if schema["type"] != "object":
            raise ValueError("must be the schema of an object")
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            place = path(error.absolute_path)
            raise ValueError(f"is no JSON schema: {place}: {error.message}") from None
        resolver = Registry().with_resource("", _resource(schema)).resolver()
        for reference in _references(schema):
            try:
                if not reference.startswith("#"):
                    raise ValueError(f"refers to {reference!r}, outside itself")
                resolver.lookup(reference)
            except Unresolvable:
                raise ValueError(f"refers to {reference!r}, which isn't there") from None
        return cls(schema)

    @cached_property
    def _validator(self) -> Draft202012Validator:
        # With a registry of its own nothing is fetched.
        return Draft202012Validator(self.schema, registry=Registry())

    def read(self, tool: str, text: str) -> dict[str, Any]:
        """Check a call's arguments and return them.

        Raises:
            InvalidArguments: they don't fit.
        """
        value = read_object(tool, text)
        try:
            problems = [
                problem for error in self._validator.iter_errors(value) for problem in _of(error)
            ]
        except OverflowError:
            # `multipleOf` divides, and an integer may be beyond what can be divided.
            raise InvalidArguments(tool, [TOO_LARGE]) from None
        if problems:
            raise InvalidArguments(tool, problems)
        return value


def _of(error: ValidationError) -> Iterator[str]:
    # The library's own words repeat the value.
    place = path(error.absolute_path)
    before = f"{place}: " if place else ""
    if (
        error.validator == "additionalProperties"
        and isinstance(error.schema, Mapping)
        and isinstance(error.instance, Mapping)
    ):
        known = error.schema.get("properties", {})
        for name in sorted(error.instance.keys() - known.keys()):
            yield before + unknown(name, known)
    elif error.validator == "required":
        yield f"{before}{error.message}"
    else:
        wanted = json.dumps(error.validator_value, ensure_ascii=False)
        shortened = wanted if len(wanted) <= _SHOWN else f"{wanted[: _SHOWN - 1]}…"
        yield f"{before}must fit {error.validator} {shortened}"


def _resource(schema: Mapping[str, Any]) -> "Resource[Any]":
    return DRAFT202012.create_resource(dict(schema))


def _references(part: object) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(part, list):
        for each in part:
            yield from _references(each)
