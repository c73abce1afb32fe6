"""`runlane tool`, and a create with the registered tools, without a server."""

import json
import sys
from pathlib import Path

import pytest

from runlane.cli.app import run
from runlane.tools.deadline import DeadlineOutcome

MODULE = '''
import runlane

@runlane.tool(policy="auto", read_only=True)
def lookup_order(order_id: str) -> dict:
    """Look an order up."""
    return {}

@runlane.tool(groups=["desk", "board"], deadline="4h", outcome="escalate", at_most_once=True)
def refund(order_id: str) -> str:
    """Refund an order."""
    return ""
'''
HTTP = """
[tools.ship]
description = "Ship an order."
url = "https://shop.example.com/ship"
policy = "approve"
headers = {X-Key = "${SHOP_TOKEN}"}
"""


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a module and a file."""
    (tmp_path / "zz_cli_tools.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "runlane.toml").write_text(HTTP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "zz_cli_tools", raising=False)
    monkeypatch.setenv("RUNLANE_TOOLS", "zz_cli_tools")
    monkeypatch.delenv("RUNLANE_CONFIG_FILE", raising=False)
    monkeypatch.delenv("SHOP_TOKEN", raising=False)


def test_a_list_says_what_each_tool_is(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each by name, and on standard error what somebody should mend."""
    assert 0 == run(["tool", "list"])

    said = capsys.readouterr()
    assert [
        ["tool", "kind", "policy", "read", "only", "at", "most", "once", "from"],
        ["lookup_order", "function", "auto", "yes", "no", "zz_cli_tools.lookup_order"],
        ["refund", "function", "unclassified", "no", "yes", "zz_cli_tools.refund"],
        ["ship", "http", "approve", "no", "no", "runlane.toml", "[tools.ship]"],
    ] == [line.split() for line in said.out.splitlines()]
    assert "Nobody classified refund: its calls need approval." in said.err
    assert "ship refers to what isn't set here: SHOP_TOKEN." in said.err


def test_a_list_is_a_document(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For programs, with the warnings still on standard error."""
    monkeypatch.setenv("SHOP_TOKEN", "t")
    assert 0 == run(["tool", "list", "--json"])

    said = capsys.readouterr()
    document = json.loads(said.out)
    by_name = {tool["name"]: tool for tool in document["data"]}
    assert ("list", 3) == (document["object"], len(by_name))
    assert ("4h", DeadlineOutcome.ESCALATE) == (
        by_name["refund"]["deadline"],
        by_name["refund"]["outcome"],
    )
    assert by_name["refund"]["at_most_once"]
    assert by_name["lookup_order"]["read_only"]
    assert by_name["ship"]["digest"].startswith("sha256:")
    assert "refund" in said.err
    assert "SHOP_TOKEN" not in said.err


def test_one_tool_is_shown_with_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """In words, and as a document."""
    assert 0 == run(["tool", "show", "refund"])
    words = capsys.readouterr()
    assert 0 == run(["tool", "show", "refund", "--json"])
    document = json.loads(capsys.readouterr().out)

    assert "  flags       at_most_once\n" in words.out
    assert "  groups      desk, board\n" in words.out
    schema = words.out.split("parameters\n")[1]
    assert document["parameters"] == json.loads(schema)
    assert ["order_id"] == document["parameters"]["required"]
    assert "Nobody classified refund" in words.err


def test_a_tool_that_is_not_there_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    """With an exit code of its own, and the names there are."""
    assert 6 == run(["tool", "show", "refunds", "--json"])

    error = json.loads(capsys.readouterr().out)["error"]
    assert "tool_not_found" == error["code"]
    assert "registered are: lookup_order, refund, ship." in error["message"]


def test_tools_that_can_not_be_loaded_are_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, and no traceback."""
    monkeypatch.setenv("RUNLANE_TOOLS", "zz_nowhere")

    assert 2 == run(["tool", "list"])

    expected = "Error: RUNLANE_TOOLS: can't import zz_nowhere: ModuleNotFoundError: No module "
    assert f"{expected}named 'zz_nowhere'.\n" == capsys.readouterr().err


def test_nothing_is_registered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is said with what to do; a create that asks for tools is refused."""
    monkeypatch.setenv("RUNLANE_TOOLS", "")
    Path("runlane.toml").unlink()
    create = ["create", "--thread", "t", "--assistant", "a", "--with-tools", "--dry-run"]

    assert 0 == run(["tool", "list"])
    assert "No tool is registered: name modules in RUNLANE_TOOLS" in capsys.readouterr().out
    assert 2 == run(create)
    assert "No tool is registered" in capsys.readouterr().err


def test_a_create_takes_the_registered_tools(capsys: pytest.CaptureFixture[str]) -> None:
    """After the tools of the body; one that is there twice is refused before anything is sent."""
    own = {"type": "function", "function": {"name": "own"}}
    body = Path("body.json")
    body.write_text(json.dumps({"assistant_id": "a", "tools": [own]}))
    create = ["create", "--thread", "t", "--params", "body.json", "--with-tools", "--dry-run"]

    assert 0 == run(create)
    params = json.loads(capsys.readouterr().out)["params"]
    names = [tool["function"]["name"] for tool in params["tools"]]
    assert ["own", "lookup_order", "refund", "ship"] == names

    own["function"] = {"name": "ship"}
    body.write_text(json.dumps({"assistant_id": "a", "tools": [own]}))
    assert 2 == run(create)
    assert "The tool ship is given in tools, and registered too." in capsys.readouterr().err
