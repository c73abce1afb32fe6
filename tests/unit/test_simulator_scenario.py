"""Reading scenarios, and what the simulated model makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runsapi.simulator import ScenarioError, load_scenarios, parse_scenario, scenario
from runsapi.simulator.arguments import arguments_for
from runsapi.simulator.model import filled


def test_the_example_in_the_documentation_is_a_scenario(tmp_path: Path) -> None:
    """What the module shows can be copied into a file and is read as meant."""
    assert scenario.__doc__ is not None
    lines = scenario.__doc__.splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("    ") or not line)
    file = tmp_path / "example.toml"
    file.write_text(example, encoding="utf-8")
    (found,) = load_scenarios(file)

    assert found.assistant_id == "asst_orders"
    assert [part.asks for part in found.rounds] == [True, False]
    assert found.rounds[0].calls[0].arguments == {"order_id": "A-1042"}
    assert found.rounds[1].polls == 2


def test_json_and_several_scenarios_in_a_file(tmp_path: Path) -> None:
    """A file may be JSON, and may hold a list under `scenarios`."""
    file = tmp_path / "two.json"
    file.write_text(json.dumps({"scenarios": [{"assistant_id": "a"}, {}]}), encoding="utf-8")

    assert [found.assistant_id for found in load_scenarios(file)] == ["a", None]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"round": []}, "round: Extra inputs"),
        ({"rounds": [{"ends": "finished"}]}, "rounds.0.ends: "),
        ({"rounds": [{"calls": [{"nme": "x"}]}]}, "rounds.0.calls.0.name: "),
        ({"rounds": [{"calls": [{"name": "x"}], "ends": "failed"}]}, "rounds.0: "),
        ({"endless": True, "rounds": [{"ends": "failed"}]}, "endless"),
        ([], "(the whole): "),
    ],
)
def test_a_wrong_scenario_names_its_field(data: Any, named: str) -> None:
    """The error says in one line which field is wrong."""
    with pytest.raises(ScenarioError) as error:
        parse_scenario(data)

    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "text"), [("bad.toml", "rounds = ["), ("bad.json", "{")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str) -> None:
    """Broken and missing files give the same kind of error, with the file's name."""
    file = tmp_path / name
    with pytest.raises(ScenarioError, match=name):
        load_scenarios(file)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=name):
        load_scenarios(file)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "x-1"),
        ({"type": "string", "enum": ["b", "a"]}, "b"),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "maxLength": 2}, "x-"),
        ({"type": ["null", "integer"], "minimum": 3}, 3),
        ({"type": "number", "maximum": 0.5}, 0.5),
        ({"type": "boolean"}, True),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"default": {"a": 1}}, {"a": 1}),
        ({"$ref": "#/$defs/part"}, {"y": "y-1"}),
        ({"allOf": [{"$ref": "#/$defs/part"}, {"properties": {"z": {"const": 9}}}]}, None),
    ],
)
def test_arguments_fit_their_schema(schema: dict[str, Any], value: Any) -> None:
    """Each kind of schema gets a value of that kind, the same every time."""
    whole = {
        "type": "object",
        "properties": {"x": schema},
        "$defs": {"part": {"type": "object", "properties": {"y": {"type": "string"}}}},
    }
    expected = {"y": "y-1", "z": 9} if value is None else value

    assert arguments_for(whole) == {"x": expected}


def test_a_schema_that_contains_itself_ends() -> None:
    """Recursion is cut, not followed."""
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}

    assert "next" in arguments_for(node)


def test_a_text_takes_fields_of_the_outputs() -> None:
    """Fields, tools and all outputs can be named; what nobody knows stays as it was."""
    outputs = [("lookup", '{"state": "sent", "n": 2}'), ("note", "plain")]

    assert filled("{state} {n} {note} {other}", outputs) == "sent 2 plain {other}"
    assert filled("{outputs}", outputs) == '{"state": "sent", "n": 2}; plain'
