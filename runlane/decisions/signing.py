"""How a face signs a decision, and how a worker tells that it did.

The signature is Ed25519 over canonical JSON with a context line of its own: no statement of the
audit trail can be passed off as a decision, nor a decision as such a statement.
"""

from collections.abc import Iterable

from activities.decision import Decision
from ledger.chain import canonical
from ledger.errors import LedgerRefused
from ledger.signing import PublicKey, Signer

_CONTEXT = b"runlane decision 1\n"


def sign(decision: Decision, signer: Signer) -> Decision:
    """Return the decision with the key's id and the signature.

    Args:
        decision: as `activities.decision.check` takes it.
        signer: the face's key.
    """
    named = decision.model_copy(update={"key_id": signer.public.id, "signature": ""})
    return named.model_copy(update={"signature": signer.signature(_signed(named))})


class Signatures:
    """A `Verifier` that knows the faces' public keys."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        """Trust these keys."""
        self._keys = {key.id: key for key in keys}

    def refusal(self, decision: Decision) -> str | None:
        """Say why a decision's signature doesn't hold; None where it does."""
        if not decision.signature:
            return "The decision is not signed."
        key = self._keys.get(decision.key_id)
        if key is None:
            known = ", ".join(self._keys)
            return f"The decision is signed with a key that the worker doesn't know ({known})."
        try:
            message = _signed(decision)
        except LedgerRefused:
            return "The decision can't have been signed as it is."
        if not key.verifies(decision.signature, message):
            return "The decision's signature doesn't fit: it was forged, or changed on its way."
        return None


def _signed(decision: Decision) -> bytes:
    return _CONTEXT + canonical(decision.signable())
