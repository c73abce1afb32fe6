"""The tools that the settings name, found, imported and registered."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runlane import Registry
from runlane.errors import InvalidTool
from runlane.settings import Settings
from runlane.tools.loading import load

MODULE = '''
import runlane
from runlane import ToolContext

@runlane.tool(policy="auto")
def {name}(order: str, ctx: ToolContext) -> str:
    """Look an order up."""
    return order

not_a_tool = 7
'''
HTTP = """
[tools.refund]
description = "Refund."
url = "https://shop.example.com/refunds"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) is None:
            continue
        if str(sys.modules[name].__file__).startswith(str(tmp_path)):
            del sys.modules[name]


def loaded(*modules: str, file: Path | None = None) -> Registry:
    """Load what these settings name."""
    return load(Settings(tools=modules, config_file=file))


def write(place: Path, name: str, text: str) -> None:
    """Write a module into the working directory."""
    (place / f"{name}.py").write_text(text, encoding="utf-8")


def test_modules_and_file_are_one_registry(place: Path) -> None:
    """From the working directory, without an installation; by name."""
    write(place, "zz_shop", MODULE.format(name="lookup"))
    (place / "runlane.toml").write_text(HTTP, encoding="utf-8")

    tools = loaded("zz_shop")

    assert [("lookup", "function"), ("refund", "http")] == [
        (tool.name, tool.body.kind) for tool in tools
    ]
    assert "zz_shop.lookup" == tools["lookup"].body.source
    assert str(place) == sys.path[-1]


def test_nothing_is_configured(place: Path) -> None:
    """Then there is no tool, and no complaint."""
    assert 0 == len(loaded())


def test_a_tool_that_is_imported_is_the_same_tool(place: Path) -> None:
    """A package may gather what its modules declare, and name both."""
    write(place, "zz_inner", MODULE.format(name="lookup"))
    write(place, "zz_outer", "from zz_inner import lookup")

    assert ["lookup"] == [tool.name for tool in loaded("zz_outer", "zz_inner")]


def test_two_tools_of_one_name_are_named_by_their_places(place: Path) -> None:
    """Whether both are functions, or one stands in the file."""
    write(place, "zz_one", MODULE.format(name="refund"))
    write(place, "zz_two", MODULE.format(name="refund"))
    with pytest.raises(InvalidTool, match=r"called refund: zz_one\.refund and zz_two\.refund\."):
        loaded("zz_one", "zz_two")

    (place / "runlane.toml").write_text(HTTP, encoding="utf-8")
    with pytest.raises(InvalidTool, match=r"zz_one\.refund and runlane\.toml \[tools\.refund\]\."):
        loaded("zz_one")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "ModuleNotFoundError: No module named 'zz_bad'."),
        ("import zz_nowhere", "ModuleNotFoundError: No module named 'zz_nowhere' ("),
        ("def f(:", "SyntaxError: "),
        ("raise SystemExit('hush')", "SystemExit (PLACE:1)."),
        ("x = 1\n{}['hush']", "KeyError (PLACE:2)."),
        ("import runlane\n@runlane.tool\ndef f(x):\n  'F.'", "Tool f: parameter x has no type"),
        ("def f(): ...", "there is no tool in zz_bad"),
    ],
)
def test_a_module_that_can_not_be_used_is_named(place: Path, text: str | None, told: str) -> None:
    """With the reason and the place, and without an error's own words, which may be a secret."""
    if text is not None:
        write(place, "zz_bad", text)
    with pytest.raises(InvalidTool, match=r"^RUNLANE_TOOLS: .*zz_bad") as caught:
        loaded("zz_bad")

    assert "RUNLANE_TOOLS" == caught.value.param
    assert told.replace("PLACE", str(place / "zz_bad.py")) in caught.value.message
    assert "hush" not in caught.value.message


def test_what_is_installed_is_not_hidden(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a module's name that happens to lie in the working directory isn't taken for it."""
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    write(place, "wave", MODULE.format(name="lookup"))

    with pytest.raises(InvalidTool, match="there is no tool in wave"):
        loaded("wave")


def test_a_file_that_is_named_must_be_there(place: Path) -> None:
    """The default file may be missing; one that somebody named may not."""
    with pytest.raises(InvalidTool, match=r"Can't read other\.toml"):
        loaded(file=Path("other.toml"))
    (place / "other.toml").write_text(HTTP, encoding="utf-8")

    assert ["refund"] == [tool.name for tool in loaded(file=Path("other.toml"))]
