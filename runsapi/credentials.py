"""Where keys come from. They are asked for at every request, so a rotated key needs no restart."""

import asyncio
import os
from pathlib import Path
from typing import Any, Protocol

from runsapi.errors import CredentialsError

AZURE_SCOPE = "https://ai.azure.com/.default"
"""The scope of tokens for Foundry Agents (classic)."""


class Credentials(Protocol):
    """Something that knows the key of an upstream."""

    async def token(self) -> str | None:
        """The key to send now, or ``None`` to send none.

        Raises:
            CredentialsError: There ought to be a key, and it can't be had.
        """
        ...


class StaticKey:
    """A key that never changes."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "StaticKey(…)"

    async def token(self) -> str | None:
        """The key."""
        return self._key or None


class EnvironmentKey:
    """The key in an environment variable, read at every request.

    Args:
        variable: The variable's name. While it is unset or empty no key is sent.
    """

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __repr__(self) -> str:
        return f"EnvironmentKey({self._variable!r})"

    async def token(self) -> str | None:
        """The variable's value."""
        return os.environ.get(self._variable, "").strip() or None


class FileKey:
    """The key in a file, read again whenever the file changes.

    A file that can't be read, or is empty, for a moment (it is being replaced) leaves the last good
    key in use.

    Args:
        path: The file, which holds the key and perhaps space around it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._key: str | None = None
        self._seen: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"FileKey({str(self._path)!r})"

    async def token(self) -> str | None:
        """The file's content.

        Raises:
            CredentialsError: The file has never yet held a key.
        """
        return await asyncio.to_thread(self._read)

    def _read(self) -> str:
        reason = "is empty"
        try:
            stat = self._path.stat()
            # The inode too: a secret that is swapped by a rename may keep size and time.
            now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if now != self._seen and (key := self._path.read_text(encoding="utf-8").strip()):
                self._key, self._seen = key, now
        except (OSError, UnicodeDecodeError) as error:
            reason = f"can't be read ({type(error).__name__})"
        if self._key is None:
            raise CredentialsError(f"The key file {self._path} {reason}.")
        return self._key


class AzureKey:
    """A token of Microsoft Entra ID, by whichever way ``DefaultAzureCredential`` finds.

    Args:
        scope: What the token is for.
        credential: An ``azure.core`` async credential, instead of the default one.
    """

    def __init__(self, scope: str = AZURE_SCOPE, credential: Any = None) -> None:
        self._scope = scope
        self._credential = credential
        self._mine = credential is None

    def __repr__(self) -> str:
        return f"AzureKey({self._scope!r})"

    async def token(self) -> str | None:
        """A token, from the credential's cache until shortly before it ends.

        Raises:
            CredentialsError: The extra isn't installed, or nobody is signed in.
        """
        if self._credential is None:
            self._credential = _default_azure_credential()
        try:
            access = await self._credential.get_token(self._scope)
        # Whatever it is, azure-identity's text may quote the answer of the token endpoint.
        except Exception as error:
            raise CredentialsError(
                f"No Azure token for {self._scope} could be had ({type(error).__name__})."
                " Sign in with `az login`, or give the process a managed identity."
            ) from None
        return str(access.token)

    async def aclose(self) -> None:
        """Close the credential, if it was made here."""
        if self._mine and self._credential is not None:
            await self._credential.close()
            self._credential = None


def _default_azure_credential() -> Any:
    try:
        # An extra: most upstreams need no Azure, and it is large.
        from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415
    except ImportError:
        raise CredentialsError(
            "Foundry Agents need azure-identity: install `runlane[azure]`."
        ) from None
    return DefaultAzureCredential()
