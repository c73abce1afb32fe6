"""What a model is told of a function, and how its arguments are checked."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

import runlane
from runlane import Registry, ToolContext
from runlane.errors import InvalidTool
from runlane.tools.arguments import MAX_PROBLEMS, InvalidArguments
from runlane.tools.json_schemas import JsonSchema
from runlane.tools.tool import MAX_DESCRIPTION, Tool

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:62deeea1972393067eb781698b62ae3b6a124711484a4ec921acb0bebcb54d24"


class Kind(StrEnum):
    """Of a refund."""

    GOODWILL = "goodwill"
    DEFECT = "defect"


class Item(BaseModel):
    """One line of an order."""

    sku: str
    count: int = Field(1, ge=1)


@runlane.tool(name="refund_order")
async def refund(
    order_id: str,
    amount: Annotated[Decimal, Field(gt=0, description="In euros.")],
    context: ToolContext,
    items: list[Item],
    *,
    kind: Kind = Kind.GOODWILL,
    day: date | None = None,
    copy: Literal["none", "paper"] = "none",
    schema: str = "v1",
) -> str:
    """Refund an order.

    Once only.

    Args:
        order_id: The order,
            as printed on the invoice.
        amount: Not used, for the annotation says more.
        context: Of the call.
        kind: Why.

    Returns:
        The refund's id.
    """
    return f"{order_id} refunded"


GOOD: dict[str, Any] = {"order_id": "A-1", "amount": "3.20", "items": [{"sku": "x"}]}


def declared(function: Callable[..., Any]) -> Tool:
    """Return the tool that a function is."""
    return next(iter(Registry.of(function)))


def test_the_schema_says_what_the_function_says() -> None:
    """Types, bounds, defaults and descriptions; the context is no model's business."""
    tool = declared(refund)
    function = tool.definition["function"]
    properties = function["parameters"]["properties"]

    assert "refund_order" == function["name"]
    assert "Refund an order.\n\nOnce only." == function["description"]
    assert ["order_id", "amount", "items"] == function["parameters"]["required"]
    assert False is function["parameters"]["additionalProperties"]
    assert "The order, as printed on the invoice." == properties["order_id"]["description"]
    assert "In euros." == properties["amount"]["description"]
    assert ("goodwill", "Why.") == (
        properties["kind"]["default"],
        properties["kind"]["description"],
    )
    assert ("none", "v1") == (properties["copy"]["default"], properties["schema"]["default"])
    assert "context" not in properties
    Draft202012Validator.check_schema(function["parameters"])
    Draft202012Validator(function["parameters"]).validate(GOOD)


def test_the_digest_is_the_same_everywhere() -> None:
    """A decision is made on a digest: another process, and another Python, find the same one."""
    code = "from tests.unit.test_tool_schemas import *; print(declared(refund).digest)"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()

    assert DIGEST == declared(refund).digest == other


def test_the_digest_covers_all_that_a_model_is_told() -> None:
    """A word changed in a description is another tool: what was decided on it holds no more."""

    def pay(amount: int) -> None:
        """Pay, in cents."""

    digest = declared(runlane.tool(pay)).digest
    assert digest != declared(runlane.tool(description="Pay, in euros.")(pay)).digest
    assert digest != declared(runlane.tool(name="pay2")(pay)).digest
    assert digest == declared(runlane.tool(policy="auto", timeout=5)(pay)).digest


def test_arguments_become_what_the_parameters_are() -> None:
    """What JSON has no word for is converted; what wasn't given is left to the function."""
    read = declared(refund).read(json.dumps({**GOOD, "kind": "defect", "day": "2026-02-28"}))

    assert {
        "order_id": "A-1",
        "amount": Decimal("3.20"),
        "items": [Item(sku="x")],
        "kind": Kind.DEFECT,
        "day": date(2026, 2, 28),
    } == read


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({**GOOD, "amount": -5}, "- amount: Input should be greater than 0"),
        ({**GOOD, "amount": True}, "- amount: "),
        ({**GOOD, "order_id": 7}, "- order_id: Input should be a valid string"),
        ({**GOOD, "kind": "theft"}, "- kind: Input should be 'goodwill' or 'defect'"),
        ({**GOOD, "items": [{"sku": "x", "count": 0}]}, "- items[0].count: Input should be"),
        ({**GOOD, "items": [{"sku": "x", "count": "2"}]}, "- items[0].count: Input should be"),
        ({**GOOD, "items": [{"sku": "x", "count": True}]}, "- items[0].count: Input should be"),
        ({"order_id": "A-1", "amount": 1}, "- items: Field required"),
        ({**GOOD, "ammount": 1}, "- ammount: there is no such parameter; there are: order_id, "),
        ({**GOOD, "context": {}}, "- context: there is no such parameter"),
        ({**GOOD, "x" * 500: 1}, f"- {'x' * 63}…: there is no such parameter"),
    ],
)
def test_a_model_is_told_what_to_mend(arguments: dict[str, Any], told: str) -> None:
    """The field is named, and nothing that was given is repeated."""
    with pytest.raises(InvalidArguments) as caught:
        declared(refund).read(json.dumps(arguments))

    text = str(caught.value)
    assert text.startswith("The tool refund_order did not run: its arguments are invalid.")
    assert told in text
    assert "A-1" not in text
    assert "3.20" not in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "they are not JSON"),
        ("[]", "they must be one JSON object"),
        ('"text"', "they must be one JSON object"),
        ('{"amount": 1, "amount": 100}', "amount: is given twice"),
        ('{"items": [{"sku": "a", "sku": "b"}]}', "sku: is given twice"),
        ('{"amount": NaN}', "NaN and Infinity are not JSON"),
        ('{"amount": 1e400}', "a number is too large"),
        ('{"amount": 1' + "0" * 5000 + "}", "- "),
        ("[" * 100_000, "nested too deep"),
        ('{"order_id": "\ud83d"}', "half of a character"),
        (r'{"order_id": "\ud83d"}', "- "),
    ],
)
def test_what_is_no_object_is_refused(arguments: str, told: str) -> None:
    """Whatever a model writes, the answer is one that it can mend."""
    with pytest.raises(InvalidArguments, match="did not run") as caught:
        declared(refund).read(arguments)

    assert told in str(caught.value)


def test_a_model_that_guesses_wildly_is_told_some_of_it() -> None:
    """The answer stays short, however much is wrong."""
    with pytest.raises(InvalidArguments) as caught:
        declared(refund).read(json.dumps({f"x{n}": n for n in range(1000)}))

    assert MAX_PROBLEMS + 2 == len(str(caught.value).splitlines())
    assert str(caught.value).endswith("- and 993 more")


def test_no_text_stands_for_no_arguments() -> None:
    """Some models write nothing where there is nothing to say."""

    @runlane.tool
    def ping() -> None:
        """Do nothing."""

    assert {} == declared(ping).read("") == declared(ping).read("{}")
    assert {"type": "object", "properties": {}, "additionalProperties": False} == (
        declared(ping).parameters
    )


def test_the_function_stays_a_function() -> None:
    """What was declared can be called, tested and typed as before."""

    @runlane.tool(policy="auto")
    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    assert 8 == double(4)
    assert "double" == double.__name__


def no_type(order):  # type: ignore[no-untyped-def]  # that is the point
    """Say."""


def no_schema(order: int, notify: object, callback: Callable[[], None]) -> None:
    """Say."""


def starred(*orders: str) -> None:
    """Say."""


def positional(order: str, /) -> None:
    """Say."""


def two_contexts(one: ToolContext, two: ToolContext) -> None:
    """Say."""


def field_as_default(order: str = Field("A-1", description="The order.")) -> None:
    """Say."""


def unknown_name(order: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821 - likewise
    """Say."""


def undescribed(order: str) -> None:
    pass


def yielding() -> Any:
    """Say."""
    yield 1


@pytest.mark.parametrize(
    ("function", "param", "told"),
    [
        (no_type, "order", "has no type"),
        (no_schema, "callback", "has a type without a JSON schema"),
        (starred, "orders", "given by name"),
        (positional, "order", "given by name"),
        (two_contexts, "two", "second ToolContext, beside one"),
        (field_as_default, "order", "write Annotated"),
        (unknown_name, "unknown_name", "'Nowhere' is not defined"),
        (undescribed, "description", "description is missing"),
        (yielding, "function", "yields"),
        (Item, "function", "is no function"),
    ],
)
def test_a_function_that_no_model_could_call_is_refused(
    function: Callable[..., Any], param: str, told: str
) -> None:
    """At the decorator, by the name of the tool and of what is to be mended."""
    with pytest.raises(InvalidTool, match=told) as caught:
        runlane.tool(function)

    assert param == caught.value.param


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "größe"])
def test_a_name_that_upstreams_refuse_is_refused(name: str) -> None:
    """The protocol's limit is checked where the tool is written."""
    with pytest.raises(InvalidTool, match="1 to 64 characters"):
        runlane.tool(name=name, description="Say.")(lambda: None)


def test_a_description_has_a_limit() -> None:
    """What a model reads in every round can't be a book."""
    with pytest.raises(InvalidTool, match="at most 4,096 characters, and has 4,097"):
        runlane.tool(name="say", description="x" * (MAX_DESCRIPTION + 1))(lambda: None)


def test_numbers_beyond_a_schemas_arithmetic_are_refused() -> None:
    """`multipleOf` divides, and some integers are beyond what can be divided."""
    schema = JsonSchema.checked({"properties": {"n": {"type": "number", "multipleOf": 0.01}}})

    with pytest.raises(InvalidArguments, match="a number is too large"):
        schema.read("work", '{"n": 1' + "0" * 400 + "}")
