"""Questions to Visibility: what a caller gives can't become part of the query's language."""

from typing import Any

import pytest

from runlane.errors import ExitCode, InvalidRequest, RunlaneError
from runlane.listing import ListQuery, quoted


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("thread_1", "'thread_1'"),
        ("it's", r"'it\'s'"),
        ("back\\slash", r"'back\\slash'"),
        ("x' OR '1'='1", r"'x\' OR \'1\'=\'1'"),
        ("ends with \\", r"'ends with \\'"),
    ],
)
def test_a_value_stays_a_value(value: str, written: str) -> None:
    """Quotes and backslashes are escaped."""
    assert written == quoted(value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"order": "newest"}, "order"),
        ({"status": "done"}, "status"),
        ({"thread_id": ""}, "thread_id"),
        ({"thread_id": "t" * 256}, "thread_id"),
    ],
)
def test_what_cannot_be_listed_is_named(fields: dict[str, Any], param: str) -> None:
    """Nothing is asked before the question is sound."""
    with pytest.raises(InvalidRequest) as refused:
        ListQuery(**fields).check()

    assert param == refused.value.param


def _kinds(kind: type[RunlaneError]) -> list[type[RunlaneError]]:
    return [kind, *(under for child in kind.__subclasses__() for under in _kinds(child))]


def test_every_error_has_its_document_and_its_exit_code() -> None:
    """What goes wrong is told in the protocol's own shape, and by a code that scripts know."""
    for kind in _kinds(RunlaneError):
        assert kind.__doc__, kind
        assert kind.exit_code in set(ExitCode)
        assert kind.exit_code is not ExitCode.DONE

    document = InvalidRequest("limit must be …", param="limit").as_json()

    assert {
        "error": {
            "message": "limit must be …",
            "type": "invalid_request_error",
            "param": "limit",
            "code": "invalid_parameter",
        }
    } == document
