"""The webhooks that get this process's notices, called as Standard Webhooks has it."""

import functools
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

import runlane
from activities.notify import Gone, NotTaken, Receiver
from runlane.monitoring import metrics
from runlane.settings import Settings, SettingsError
from workflows.contract import content_digest

_GONE = 410


def receivers(settings: Settings) -> list[Receiver]:
    """Return the settings' webhooks.

    Raises:
        SettingsError: there are some, and no secret, or its file can't be used.
    """
    if settings.webhook_urls and not settings.read_webhook_secrets():
        problem = "must be set, for RUNLANE_WEBHOOK_URL is. Make one: "
        raise SettingsError("RUNLANE_WEBHOOK_SECRET", f"{problem}whsec_$(openssl rand -base64 32)")
    return [WebhookReceiver(url, settings.read_webhook_secrets) for url in settings.webhook_urls]


class WebhookReceiver:
    """One webhook."""

    def __init__(self, url: str, secrets: Callable[[], Sequence[str]]) -> None:
        """Take its address, and what tells the keys of the hour."""
        self._url = httpx.URL(url)
        self._secrets = secrets
        self.name = content_digest(url).removeprefix("sha256:")[:16]
        self.shown = f"webhook {self._url.scheme}://{self._url.netloc.decode()}"

    async def deliver(self, message_id: str, body: str) -> None:
        """Post the message, signed as of now.

        Raises:
            Gone: the answer is 410.
            NotTaken: it isn't 2xx, or there is none.
        """
        outcome = "not_taken"
        try:
            await self._post(message_id, body)
            outcome = "taken"
        except Gone:
            outcome = "gone"
            raise
        finally:
            metrics.NOTICES.labels(outcome).inc()

    async def _post(self, message_id: str, body: str) -> None:
        try:
            headers = self._headers(message_id, body)
        except SettingsError as error:
            raise NotTaken(f"not signed: {error}") from None
        # A client of its own keeps no cookies for the next one.
        client = httpx.AsyncClient(
            verify=_tls(),
            timeout=None,  # noqa: S113 - the activity's holds, for all of it
            follow_redirects=False,
        )
        try:
            async with (
                client,
                # What it says besides is of no interest, and may be of any size.
                client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                status = response.status_code
        except httpx.HTTPError as error:
            # Its text may hold the address.
            raise NotTaken(type(error).__name__) from None
        if status == _GONE:
            raise Gone
        if not response.is_success:
            raise NotTaken(f"answered {status}")

    def _headers(self, message_id: str, body: str) -> dict[str, str]:
        now = datetime.now(UTC)
        signatures = [Webhook(secret).sign(message_id, now, body) for secret in self._secrets()]
        return {
            "Content-Type": "application/json",
            "User-Agent": f"runlane/{runlane.__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


@functools.cache
def _tls() -> ssl.SSLContext:
    # A fiftieth of a second, each time.
    return httpx.create_ssl_context()
