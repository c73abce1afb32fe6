"""What goes to Temporal of an error fits into what Temporal keeps of it."""

import secrets
from typing import Any

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes
from temporalio.exceptions import ApplicationError

from runlane.settings import EncryptionKey
from runlane.short_failures import ShortEncodedFailures
from runlane.temporal import data_converter

KEPT_BYTES = 4_000
"""By Temporal's server, of what an activity failed with last."""


def _deep(names: list[str]) -> None:
    """Call functions of these names from each other, as libraries do; the last one fails."""
    if not names:
        raise ConnectionError("no answer from the upstream " * 10)
    source = f"def {names[0]}(below):\n    return deep(below)\n"
    scope: dict[str, Any] = {"deep": _deep}
    exec(compile(source, f"/opt/somewhere/site-packages/{names[0]}.py", "exec"), scope)
    scope[names[0]](names[1:])


def _failed() -> ApplicationError:
    try:
        try:
            _deep([f"a_function_of_a_library_{number}" for number in range(20)])
        except ConnectionError as error:
            raise ApplicationError("Thread thread_1 is taken. " * 10, type="ThreadBusy") from error
    except ApplicationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("has_keys", [True, False])
async def test_an_error_of_a_deep_place_is_kept(has_keys: bool) -> None:
    """Message and kind of each error in the chain are there, with the innermost frames."""
    keys = [EncryptionKey("k1", secrets.token_bytes(32))] if has_keys else []
    converter = data_converter(keys=keys)
    failure = Failure()
    await converter.encode_failure(_failed(), failure)

    assert len(failure.SerializeToString()) < KEPT_BYTES
    error = await converter.decode_failure(failure)
    assert isinstance(error, ApplicationError)
    assert ("ThreadBusy", True) == (error.type, error.message.startswith("Thread thread_1"))
    cause = error.cause
    assert isinstance(cause, ApplicationError)
    assert "ConnectionError" == cause.type
    if not has_keys:
        assert "_deep" in failure.cause.stack_trace


def test_the_same_error_is_too_long_as_it_is() -> None:
    """With whole traces Temporal would keep nothing of it."""
    converter = data_converter(keys=[EncryptionKey("k1", secrets.token_bytes(32))])
    assert ShortEncodedFailures is converter.failure_converter_class
    failure = Failure()
    DefaultFailureConverterWithEncodedAttributes().to_failure(
        _failed(), converter.payload_converter, failure
    )
    assert len(failure.SerializeToString()) > KEPT_BYTES
