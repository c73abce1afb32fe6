"""Who may ask at all, before anything of a body is read.

FastAPI reads and parses a body first, and only then asks who sends it: eight megabytes of brackets
would keep a server busy for seconds, from anybody. What a role may is asked by the routes.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ledger import LedgerError
from runlane.api.refusals import Refusal, answer
from runlane.api.services import Services

_OURS = "/v1/"


class Admitting:
    """ASGI middleware: refuses what comes with a body from whom nobody knows."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["path"].startswith(_OURS):
            request = Request(scope)
            if _has_body(request):
                services: Services = request.app.state.services
                try:
                    await services.access.principal(request)
                except Refusal as refusal:
                    await answer(refusal)(scope, receive, send)
                    return
                except LedgerError:
                    # The route will meet the same, and say so.
                    pass
        await self._app(scope, receive, send)


def _has_body(request: Request) -> bool:
    told = request.headers.get("content-length", "0")
    return told.strip("0") != "" or "transfer-encoding" in request.headers
