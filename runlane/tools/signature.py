"""A function's parameters as a JSON schema, and arguments checked against them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, get_type_hints

import docstring_parser
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypedDict

from runlane.errors import InvalidTool
from runlane.tools.arguments import InvalidArguments, path, read_object, unknown
from runlane.tools.context import ToolContext

_make_shape: Any = TypedDict
"""Called with what is known at run time only."""


@dataclass(frozen=True)
class Signature:
    """What a function takes from a model, and what it is for."""

    description: str
    parameters: dict[str, Any]
    """The JSON schema."""
    context: str | None
    """The parameter that takes the `ToolContext`."""
    adapter: TypeAdapter[dict[str, Any]]

    def read(self, tool: str, text: str) -> dict[str, Any]:
        """Check a call's arguments and return them by name, converted to the parameters' types.

        A parameter that isn't given isn't there: its default is the function's own.

        Raises:
            InvalidArguments: they don't fit.
        """
        given = read_object(tool, text)
        try:
            # Strict: `true` is no number, though Python would take it for 1.
            return self.adapter.validate_json(text if given else "{}", strict=True)
        except ValidationError as error:
            # Neither the values nor the caller's own words go along.
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [self._problem(each["type"], each["loc"], each["msg"]) for each in found]
        raise InvalidArguments(tool, problems)

    def _problem(self, kind: str, place: tuple[int | str, ...], text: str) -> str:
        if kind == "extra_forbidden" and len(place) == 1:
            return unknown(place[0], self.parameters["properties"])
        return f"{path(place)}: {text}" if place else text


def signature_of(tool: str, function: Callable[..., Any]) -> Signature:
    """Derive what a model is told of a function, from its annotations and its docstring.

    Raises:
        InvalidTool: a parameter has no type, or one without a JSON schema.
    """
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    hints = _hints(tool, function)
    context = None
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if hints.get(name) is ToolContext:
            if context is not None:
                raise _invalid(tool, name, f"is a second ToolContext, beside {context}")
            context = name
        else:
            fields[name] = _field(tool, parameter, hints)
            if parameter.default is not parameter.empty:
                defaults[name] = parameter.default
    adapter, schema = _schema(tool, fields)
    told = {param.arg_name: param.description for param in doc.params if param.description}
    _describe(schema, told, defaults)
    description = "\n\n".join(filter(None, [doc.short_description, doc.long_description]))
    return Signature(description, schema, context, adapter)


def _hints(tool: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:  # an annotation is any expression
        text = f"Tool {tool}: its annotations can't be read: {type(error).__name__}: {error}."
        raise InvalidTool(text, param=tool) from None


def _field(tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    name = parameter.name
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise _invalid(tool, name, "must be one that can be given by name: no *, no / after it")
    if name not in hints:
        raise _invalid(tool, name, "has no type; annotate it, for its JSON schema")
    if isinstance(parameter.default, FieldInfo):
        wanted = "Annotated[TYPE, Field(…)], with a plain default"
        raise _invalid(tool, name, f"has a Field as its default; write {wanted}")
    return hints[name] if parameter.default is parameter.empty else NotRequired[hints[name]]


class _Untitled(GenerateJsonSchema):
    """Without the titles that pydantic makes of names: they tell a model nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schema(
    tool: str, fields: dict[str, Any]
) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    try:
        return _built(fields)
    except (PydanticUserError, TypeError) as error:
        problem = error
    for name, annotation in fields.items():
        try:
            _built({name: annotation})
        except (PydanticUserError, TypeError):
            text = "has a type without a JSON schema"
            raise _invalid(tool, name, text) from problem
    raise InvalidTool(f"Tool {tool}: its parameters have no JSON schema.", param=tool) from problem


def _built(fields: dict[str, Any]) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    # A TypedDict and no model: its keys may have any name, `schema` and `copy` too.
    shape = _make_shape("arguments", fields)
    shape.__pydantic_config__ = ConfigDict(extra="forbid")
    adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
    schema = adapter.json_schema(schema_generator=_Untitled)
    schema.pop("title", None)
    return adapter, {**schema, "properties": schema.get("properties", {})}


def _describe(schema: dict[str, Any], told: dict[str, str], defaults: dict[str, Any]) -> None:
    for name, field in schema["properties"].items():
        if name in told:
            field.setdefault("description", " ".join(told[name].split()))
        if name in defaults and "default" not in field:
            try:
                field["default"] = to_jsonable_python(defaults[name])
            except PydanticSerializationError:
                continue  # a model can do without


def _invalid(tool: str, parameter: str, problem: str) -> InvalidTool:
    return InvalidTool(f"Tool {tool}: parameter {parameter} {problem}.", param=parameter)
