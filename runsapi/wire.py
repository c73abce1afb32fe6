"""How the protocol's objects are read and its parameters are checked.

Reading forgives: servers leave fields out, send ``{}`` for null, milliseconds for seconds, dates
for timestamps, and words nobody has heard of. Sending doesn't: what is wrong is refused before it
leaves, with the parameter's name and its limit and never with its contents.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WrapValidator

from runsapi.errors import InvalidParameter

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# The year 5138 in seconds, March 1973 in milliseconds: nothing real lies on the wrong side.
_FIRST_MILLISECONDS = 100_000_000_000


class WireObject(BaseModel):
    """Something an upstream sends: unknown fields are ignored, it never changes once read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class OpenWireObject(WireObject):
    """Something an upstream sends of which unknown fields are kept too, in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _seconds(value: object) -> int | None:
    if isinstance(value, str):
        text = value
        try:
            value = float(text)
        except ValueError:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                return None
            # A clone that writes a datetime without a zone means UTC: it keeps them in its database
            # so.
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = int(value)
    except (ValueError, OverflowError):
        return None
    return seconds // 1000 if seconds >= _FIRST_MILLISECONDS else seconds


def _text(value: object) -> object:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _metadata(value: object) -> object:
    if not isinstance(value, Mapping):
        return None
    return {str(key): _text(item) for key, item in value.items()}


def _readable_or_none(value: object, handler: Callable[[object], object]) -> object:
    if value is None or value == {}:
        return None
    try:
        return handler(value)
    except ValidationError:
        return None


def or_default(make: Callable[[], object]) -> WrapValidator:
    """For a part without which the whole is still worth reading: the default in its place."""

    def read(value: object, handler: Callable[[object], object]) -> object:
        try:
            return handler(value)
        except ValidationError:
            return make()

    return WrapValidator(read)


Seconds = Annotated[int, BeforeValidator(lambda value: _seconds(value) or 0)]
"""A Unix time in seconds; 0 where the upstream gave none."""

SecondsOrNone = Annotated[int | None, BeforeValidator(lambda value: _seconds(value) or None)]
"""A Unix time in seconds; null, 0 and what is no time at all are ``None``."""

Text = Annotated[str, BeforeValidator(_text)]
"""A string; null is empty, and an object sent where its JSON belongs becomes that JSON."""

Metadata = Annotated[dict[str, str] | None, BeforeValidator(_metadata)]
"""The pairs attached to an object. Values that are no strings are read as their JSON."""

OrNone = WrapValidator(_readable_or_none)
"""For what nobody acts on: ``{}`` and anything unreadable are read as ``None``."""

OrEmpty = BeforeValidator(lambda value: value if isinstance(value, list) else [])
"""For lists: anything else (null, absent) is read as the empty one."""


class Params(BaseModel):
    """Parameters of a call. Which fields were given is remembered: null is sent, absent isn't.

    ``model_dump(mode="json", exclude_unset=True)`` and its JSON keep that difference.

    Raises:
        InvalidParameter: A parameter is unknown, missing, of the wrong type or beyond its limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Hidden from the type checker, which would otherwise lose the fields' own signature.
    if not TYPE_CHECKING:

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**{name: plain(value) for name, value in data.items()})
            except ValidationError as error:
                # `from None`: pydantic's own text shows the value, which may be an instruction.
                raise invalid_parameter(error, type(self).__name__) from None

        @classmethod
        def model_validate(cls, obj: Any, **options: Any) -> Self:
            try:
                return super().model_validate(plain(obj), **options)
            except ValidationError as error:
                raise invalid_parameter(error, cls.__name__) from None

        @classmethod
        def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
            try:
                return super().model_validate_json(json_data, **options)
            except ValidationError as error:
                raise invalid_parameter(error, cls.__name__) from None

    def body(self) -> dict[str, Any]:
        """The JSON body: the fields that were given, null where null was given."""
        return self.model_dump(mode="json", exclude_unset=True)


def plain(value: Any) -> Any:
    """The value with every model in it (a tool read from a run, say) as the fields it was given."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray):
        return [plain(item) for item in value]
    return value


_SENTENCES: Mapping[str, str] = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be text that UTF-8 can hold",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "finite_number": "must be a finite number",
}


def invalid_parameter(error: ValidationError, owner: str) -> InvalidParameter:
    """The first thing wrong, in words of ours: pydantic's show the value."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    param = _path(first)
    if isinstance(cause, InvalidParameter):
        # Raised by a model inside this one, which named its own field only.
        inner = param and f"{param}.{cause.param}"
        return InvalidParameter(
            param=inner or cause.param, message=f"{param}.{cause}" if param else str(cause)
        )
    return InvalidParameter(param=param or owner, message=_sentence(first, param or owner, owner))


def _path(details: "ErrorDetails") -> str:
    path = ""
    for part in details["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):  # "<…>" is the name of a union's branch
            path += f".{part}" if path else part
    return path


def _sentence(details: "ErrorDetails", param: str, owner: str) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        return f"{param} is not a parameter of {owner}"
    if kind in ("literal_error", "union_tag_invalid"):
        context = details.get("ctx", {})
        return f"{param} must be {context.get('expected') or context.get('expected_tags')}"
    if kind == "limit":  # our own validators, whose text is safe to show
        return f"{param} {details['msg']}"
    sentence = _SENTENCES.get(kind, f"is not valid ({kind})")
    got = "" if kind in ("missing", "string_unicode", "finite_number") else _got(details["input"])
    return f"{param} {sentence}{got}"


def _got(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    names |= {str: "a string", list: "a list", dict: "an object"}
    return f", got {names.get(type(value), type(value).__name__)}"
