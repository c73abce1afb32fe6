"""The documents name what there is: commands, variables, files, statuses, tests."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from activities.decision import DecisionKind, DecisionStatus
from activities.notify import NoticeEvent
from runlane.cli.app import app
from runlane.settings import Settings
from runsapi import RunStatus
from workflows.contract import AnswerOutcome, BlockedKind, ReceiptStatus

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] + [
    str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))
]
FAILURES = "docs/failure-semantics.md"
ROWS = [*(f"P{n}" for n in range(1, 23)), *(f"T{n}" for n in range(1, 29))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_TEST_ID = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")
_VARIABLE = re.compile(r"\bRUNLANE_[A-Z0-9_]+\b")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


@cache
def text(page: str) -> str:
    """Return a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(page: str) -> str:
    """Return a page without its code blocks and code spans, in which a bracket is no link."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text(page)))


def anchors(page: str) -> set[str]:
    """Return the names by which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[tuple[str, str]]:
    """Return every command line that a page shows, as (page, line)."""
    found = []
    for page in PAGES:
        for _, block in _FENCE.findall(text(page)):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page, line.removeprefix("$ ").strip()) for line in lines]
        found += [(page, span) for span in re.findall(r"`([^`\n]+)`", text(page))]
    return [(page, line) for page, line in found if re.match(r"(runlane|make) [a-z-]", line)]


def parsers() -> dict[str, Any]:
    """Return the parsers of all commands of `runlane`: `create`, `tool list`."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        if below is None:
            found[name] = command
        else:
            found |= {f"{name} {word}": each for word, each in below.items()}
    return found


def test_every_command_exists() -> None:
    """What a page says to type is a target of the Makefile, or a command with these options."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    known = parsers()
    assert commands()

    for page, line in commands():
        # An option may stand in brackets, and alternatives apart from it: `[--order asc|desc]`.
        program, name, *words = re.sub(r"[\[\]…]", " ", line).split("  #")[0].split()
        if program == "make" or name.startswith("-"):
            assert name in targets | {"--version", "--help"}, f"{page}: {line}"
            continue
        name = name if name in known else " ".join([name, *words[:1]])
        assert name in known, f"{page}: {line}"
        options = {option for param in known[name].params for option in param.opts}
        used = {word for word in words if re.fullmatch(r"--[a-z-]+", word)}

        assert used <= options | {"--help"}, f"{page}: {line}"


def test_every_option_is_referred_to() -> None:
    """The page on the command line leaves no command and no option out."""
    page = text("docs/client.md")

    for name, command in parsers().items():
        assert f"`runlane {name}" in page
        options = {option for param in command.params for option in param.opts}
        for option in options - {"-h", "--help"}:
            assert not option.startswith("--") or option in page, f"{name} {option}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """A relative link names a file of ours, and a heading where it names one."""
    for link in _LINK.findall(without_code(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page

        assert target.exists(), link
        assert target.resolve().is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), link


def test_the_variables_are_those_that_are_read() -> None:
    """The README's table has each variable of Runlane's, and no page has another one."""
    table = re.findall(r"^\| `(RUNLANE_\w+)` \|", text("README.md"), re.MULTILINE)
    read = set(_VARIABLE.findall(Settings.__doc__ or ""))

    assert sorted(read) == sorted(table)
    for page in PAGES:
        assert set(_VARIABLE.findall(text(page))) <= read, page


def test_the_python_examples_compile() -> None:
    """An example in Python is Python."""
    for page in PAGES:
        for language, block in _FENCE.findall(text(page)):
            if language == "python":
                compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_shell_examples_can_be_read() -> None:
    """A command line in a page has its quotes closed."""
    for _page, line in commands():
        shlex.split(line)


def test_the_lifecycle_has_a_row_for_each_status() -> None:
    """Each of the nine statuses is described by how a run gets in and out, and what is done."""
    rows = table_rows("docs/lifecycle.md")
    described = {row[0].strip("`"): row for row in rows if len(row) == 4}

    for status in RunStatus:
        assert all(described[status.value]), status


@pytest.mark.parametrize("words", [ReceiptStatus, AnswerOutcome, BlockedKind])
def test_the_lifecycle_explains_what_view_says(words: Any) -> None:
    """Each receipt, outcome and hindrance that a run can show has its explanation."""
    page = text("docs/lifecycle.md")
    # An answer that waits still is explained by the statuses.
    told = {word.value for word in words} - {"waiting"}

    assert [] == [word for word in sorted(told) if f"`{word}`" not in page]


@pytest.mark.parametrize("words", [DecisionKind, DecisionStatus, NoticeEvent])
def test_the_page_on_approvals_explains_what_is_said(words: Any) -> None:
    """Each decision, each receipt and each notice has its explanation."""
    page = text("docs/approvals.md")

    assert [] == [word.value for word in words if not re.search(rf"`{word.value}\b", page)]


def table_rows(page: str) -> list[list[str]]:
    """Return the rows of all tables of a page, as cells; the rules between are left out."""
    lines = [line for line in text(page).splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines]
    return [[cell.strip() for cell in row] for row in rows if set("".join(row)) - set(" -:")]


def failure_rows() -> dict[str, list[str]]:
    """Return the numbered rows of the failure semantics: number → cells."""
    rows = [row for row in table_rows(FAILURES) if re.fullmatch(r"[A-Z]\d+", row[0])]
    numbers = [row[0] for row in rows]
    assert sorted(set(numbers)) == sorted(numbers), "a number is given twice"
    return {row[0]: row for row in rows}


@cache
def defined_in(path: str) -> frozenset[str]:
    """Return the names of a file's test functions, those of classes as `Class::test`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(names)


def test_no_failure_is_left_out() -> None:
    """Each of the 22 bugs of others and the 28 traps of the protocol has its row."""
    rows = failure_rows()

    assert [] == [number for number in ROWS if number not in rows]


def test_every_failure_is_held_by_a_test_or_says_why_not() -> None:
    """A row names a test, or says after `not here:` why there is none; no cell is empty."""
    for number, cells in failure_rows().items():
        assert all(cells), number
        last = cells[-1]
        assert _TEST_ID.search(last) or re.search(r"not here: \S", last), number


def test_every_test_that_a_failure_names_exists() -> None:
    """A test that is renamed or deleted takes its row along."""
    named = _TEST_ID.findall(text(FAILURES))
    assert named

    for test in named:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), test
        assert name in defined_in(path), test


def test_what_looks_like_a_test_is_checked() -> None:
    """No test is named in a form that the check above would overlook."""
    mentioned = len(re.findall(r"test_\w+\.py::", text(FAILURES)))

    assert mentioned == len(_TEST_ID.findall(text(FAILURES)))
