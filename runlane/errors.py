"""What can go wrong for a caller of Runlane, sorted by what the caller can do about it.

    RunlaneError
    ├── InvalidRequest         mend the request; nothing was sent
    ├── InvalidTool            mend the tool's declaration
    ├── NotFound               there is no such thing
    │   ├── RunNotFound
    │   ├── StepNotFound
    │   ├── ApprovalNotFound
    │   └── ToolNotFound
    ├── Refused                the request is understood, and the answer is no
    │   ├── KeyReused
    │   ├── RunEnded
    │   ├── DecisionRefused    carries the receipt's word
    │   └── AnswersRefused     carries one receipt for each answer
    ├── Unreachable            try again once it answers; nothing is known to be lost
    │   ├── TemporalUnreachable
    │   ├── NamespaceMissing
    │   ├── UpstreamUnreachable
    │   ├── LedgerUnreachable
    │   └── NoWorker
    ├── CannotDecrypt          give this process the key that it lacks; nothing is lost
    ├── LedgerUnusable         start the newer Runlane, or install what is missing
    ├── PayloadStoreError      (in `payload_store`) bring the store back; nothing is lost
    ├── StartUncertain         the run may or may not exist; the message names it
    └── WaitTimeout            the caller's own patience ended; carries what was seen last

Every error knows its JSON form and the exit code of the command line.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.contract import Receipt, RunView


class ExitCode(IntEnum):
    """What a command's exit code says; scripts rely on it."""

    DONE = 0
    OTHER = 1
    """Anything without a code of its own, and findings of `doctor`."""
    BAD_INPUT = 2
    NOT_COMPLETED = 3
    """The run ended otherwise than completed, or a cancel came too late."""
    WAITING = 4
    """The run waits for answers."""
    UNREACHABLE = 5
    """Temporal or the upstream can't be reached, or no worker answers."""
    NOT_FOUND = 6
    TIMEOUT = 7
    """`--timeout` passed; the run goes on."""
    REFUSED = 8
    INTERRUPTED = 130
    """By Ctrl-C; the run goes on."""


class RunlaneError(Exception):
    """Something went wrong that a caller can be told about in a sentence."""

    exit_code = ExitCode.OTHER
    type = "runlane_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Say what happened and what to do; `param` names the argument at fault."""
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def as_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints, in the shape of the protocol's own errors."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(RunlaneError):
    """A parameter can't be used. Mend it and call again; nothing was sent."""

    exit_code = ExitCode.BAD_INPUT
    type = "invalid_request_error"
    code = "invalid_parameter"


class InvalidTool(RunlaneError):
    """A tool is declared in a way that can't be used; the message names tool, option and limit."""

    exit_code = ExitCode.BAD_INPUT
    type = "configuration_error"
    code = "invalid_tool"


class NotFound(RunlaneError):
    """There is no such thing, or no longer: Temporal forgets a run when its retention ends."""

    exit_code = ExitCode.NOT_FOUND
    type = "invalid_request_error"
    code = "not_found"


class RunNotFound(NotFound):
    """No run has this id, or it is on another thread than the one given."""

    code = "run_not_found"


class StepNotFound(NotFound):
    """No upstream run of this run has a step with this id."""

    code = "step_not_found"


class ToolNotFound(NotFound):
    """No tool of this name is registered."""

    code = "tool_not_found"


class ApprovalNotFound(NotFound):
    """No such call waits for people: it never did, or it waits no more."""

    code = "approval_not_found"


class Refused(RunlaneError):
    """The request came through and was turned down. Sending it again changes nothing."""

    exit_code = ExitCode.REFUSED
    type = "conflict_error"
    code = "refused"


class KeyReused(Refused):
    """The idempotency key belongs to another request. Use another key, or the same request."""

    code = "idempotency_key_reused"


class RunEnded(Refused):
    """The run has ended or is ending, so it can't be changed any more. Read it instead."""

    code = "run_ended"


class DecisionRefused(Refused):
    """A decision doesn't count. `status` is its receipt's word, the message says why."""

    code = "decision_refused"

    def __init__(self, message: str, status: str, decision_id: str) -> None:
        """Carry what the run said."""
        super().__init__(message)
        self.status = str(status)
        self.decision_id = decision_id

    def as_json(self) -> dict[str, Any]:
        """Return the error document with the receipt beside the error."""
        receipt = {"status": self.status, "decision_id": self.decision_id}
        return {**super().as_json(), "receipt": receipt}


class AnswersRefused(Refused):
    """At least one answer was not taken. `receipts` tells them apart; the others stand."""

    code = "answers_refused"

    def __init__(self, message: str, receipts: "Sequence[Receipt]") -> None:
        """Carry the receipt of every answer, the taken ones too."""
        super().__init__(message, param="tool_outputs")
        self.receipts = list(receipts)

    def as_json(self) -> dict[str, Any]:
        """Return the error document with the receipts beside the error."""
        receipts = [receipt.model_dump(mode="json") for receipt in self.receipts]
        return {**super().as_json(), "receipts": receipts}


class Unreachable(RunlaneError):
    """Somebody who is needed doesn't answer. Start or mend it, then call again."""

    exit_code = ExitCode.UNREACHABLE
    type = "unreachable_error"


class TemporalUnreachable(Unreachable):
    """Temporal doesn't answer at its address. Start it (`runlane up`) or set `TEMPORAL_ADDRESS`."""

    code = "temporal_unreachable"


class NamespaceMissing(Unreachable):
    """Temporal answers, but has no such namespace. Create it or set `TEMPORAL_NAMESPACE`."""

    code = "namespace_not_found"


class UpstreamUnreachable(Unreachable):
    """The upstream doesn't answer, or refuses the credentials this process has."""

    code = "upstream_unreachable"


class LedgerUnreachable(Unreachable):
    """The ledger doesn't answer, or can't be written. Start its server, or make room for it."""

    code = "ledger_unreachable"


class NoWorker(Unreachable):
    """No worker takes the run's messages. Start one with `runlane worker`, then call again."""

    code = "no_worker"


class CannotDecrypt(RunlaneError):
    """A payload can't be decrypted with the keys at hand; the message names its key, never more.

    Add that key after the others, and call again: nothing is lost.
    """

    exit_code = ExitCode.BAD_INPUT
    type = "configuration_error"
    code = "cannot_decrypt"

    def __init__(self, key_id: str, problem: str) -> None:
        """Name the key that encrypted the payload."""
        variable = "RUNLANE_ENCRYPTION_KEYS"
        super().__init__(f"{variable}: {problem}", param=variable)
        self.key_id = key_id
        self.problem = problem


class LedgerUnusable(RunlaneError):
    """The ledger answers, and this program can't use it; the message says why and what to do."""

    type = "configuration_error"
    code = "ledger_unusable"


class StartUncertain(RunlaneError):
    """Temporal's answer to the start was lost. `run_id` is the run's, if it exists."""

    exit_code = ExitCode.UNREACHABLE
    type = "unreachable_error"
    code = "start_uncertain"

    def __init__(self, message: str, run_id: str) -> None:
        """Name the run, so that the caller can look before starting another one."""
        super().__init__(message)
        self.run_id = run_id


class WaitTimeout(RunlaneError):
    """The wait's `timeout` passed. The run goes on; `view` is what was seen last."""

    exit_code = ExitCode.TIMEOUT
    type = "timeout_error"
    code = "timeout"

    def __init__(self, message: str, view: "RunView") -> None:
        """Carry the run as it was seen last."""
        super().__init__(message)
        self.view = view
