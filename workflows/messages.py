"""What a message must look like to be recorded. Checked by callers before sending, and again here.

One message over Temporal's limits fails every workflow task of its run for good, so nothing that
large may ever become part of a history.
"""

from temporalio.exceptions import ApplicationError

from activities.decision import Decision, InvalidDecision, check
from workflows.contract import (
    INVALID_MESSAGE,
    MAX_ID_LENGTH,
    MAX_MESSAGE_BYTES,
    ToolOutputs,
)

MAX_OUTPUTS = 128
"""Answers in one message."""
MAX_METADATA_PAIRS = 14
"""Of the protocol's sixteen pairs, two are our stamps."""
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
RESERVED_PREFIX = "runlane_"


def check_tool_outputs(outputs: ToolOutputs) -> None:
    """Refuse a malformed delivery.

    Raises:
        ApplicationError: Of type `InvalidMessage`; it names the field and the limit.
    """
    count = len(outputs.tool_outputs)
    if not 1 <= count <= MAX_OUTPUTS:
        raise _invalid(f"tool_outputs must hold 1 to {MAX_OUTPUTS} outputs, got {count}")
    for index, output in enumerate(outputs.tool_outputs):
        if not 1 <= len(output.tool_call_id) <= MAX_ID_LENGTH:
            raise _invalid(
                f"tool_outputs[{index}].tool_call_id must have 1 to {MAX_ID_LENGTH} characters"
            )
    size = len(outputs.model_dump_json().encode())
    if size > MAX_MESSAGE_BYTES:
        raise _invalid(f"tool_outputs must be at most {MAX_MESSAGE_BYTES} bytes, got {size}")


def check_decision(decision: Decision) -> None:
    """Refuse a malformed decision.

    Raises:
        ApplicationError: Of type `InvalidMessage`; it names the field and the limit.
    """
    try:
        check(decision)
    except InvalidDecision as error:
        raise _invalid(str(error)) from None


def check_metadata(metadata: dict[str, str]) -> None:
    """Refuse metadata that the upstream would refuse, or that would overwrite our stamps.

    Raises:
        ApplicationError: Of type `InvalidMessage`; it names the field and the limit.
    """
    if len(metadata) > MAX_METADATA_PAIRS:
        raise _invalid(
            f"metadata must hold at most {MAX_METADATA_PAIRS} pairs, got {len(metadata)}"
        )
    for key, value in metadata.items():
        if key.startswith(RESERVED_PREFIX):
            raise _invalid(f"metadata keys that start with {RESERVED_PREFIX} are Runlane's own")
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            raise _invalid(f"metadata keys must have 1 to {MAX_METADATA_KEY} characters")
        if len(value) > MAX_METADATA_VALUE:
            raise _invalid(
                f"metadata values must have at most {MAX_METADATA_VALUE} characters, "
                f"got {len(value)}"
            )


def _invalid(message: str) -> ApplicationError:
    return ApplicationError(message, type=INVALID_MESSAGE)
