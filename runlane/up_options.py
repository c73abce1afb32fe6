"""What `runlane up` is asked for, and what it takes where nobody says."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runlane.errors import InvalidRequest
from runlane.ports import HIGHEST_PORT
from runlane.settings import Settings

DEFAULT_DATA_DIR = Path(".runlane")
DEFAULT_TEMPORAL_PORT = 7233
DEFAULT_UI_PORT = 8233
DEFAULT_API_PORT = 8400
"""For another Temporal port it is as far from that as this one is from 7233; so is the UI's."""

_UI_PORT_OFFSET = DEFAULT_UI_PORT - DEFAULT_TEMPORAL_PORT
_API_PORT_OFFSET = DEFAULT_API_PORT - DEFAULT_TEMPORAL_PORT

# The simulator takes no key, and what authenticates elsewhere must not be sent to it.
REAL_UPSTREAM = ("RUNLANE_UPSTREAM_URL", "RUNLANE_UPSTREAM_API", "RUNLANE_UPSTREAM_AUTH")


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What `up` is asked for, checked."""

    settings: Settings
    data_dir: Path
    temporal_port: int
    """0 takes a free one."""
    ui_port: int
    api_port: int | None = None
    """None: the API isn't served."""
    simulate: bool
    """Execute runs in the simulator, whatever upstream is configured."""
    accept_server_version: bool = False
    """Go on with the database of another version of Temporal's server."""

    @classmethod
    def from_env(
        cls,
        *,
        simulate: bool,
        temporal_port: int | None = None,
        ui_port: int | None = None,
        api_port: int | None = None,
        serves_api: bool = False,
        data_dir: Path | None = None,
        accept_server_version: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> "UpOptions":
        """Fill in what wasn't said from the environment and the defaults.

        Raises:
            InvalidRequest: nobody says where runs are executed, or a port is none.
            SettingsError: a variable can't be used.
        """
        for port, option in (
            (temporal_port, "--temporal-port"),
            (ui_port, "--ui-port"),
            (api_port, "--api-port"),
        ):
            if port is not None and not 0 <= port <= HIGHEST_PORT:
                text = f"{option} must be between 1 and {HIGHEST_PORT:,}, or 0 for a free port."
                raise InvalidRequest(text, param=option)
        if simulate:
            environ = {k: v for k, v in environ.items() if not k.startswith(REAL_UPSTREAM)}
        settings = Settings.from_env(environ)
        if settings.upstream_url is None and not simulate:
            text = (
                "Nobody says where runs are executed. Set RUNLANE_UPSTREAM_URL to your upstream "
                "(and RUNLANE_UPSTREAM_API_KEY), or try it without one: runlane up --simulate"
            )
            raise InvalidRequest(text, param="RUNLANE_UPSTREAM_URL", code="no_upstream")
        port = DEFAULT_TEMPORAL_PORT if temporal_port is None else temporal_port
        if serves_api and api_port is None:
            api_port = _beside(port, _API_PORT_OFFSET)
        return cls(
            settings=settings,
            data_dir=(data_dir or settings.data_dir or DEFAULT_DATA_DIR).absolute(),
            temporal_port=port,
            ui_port=_beside(port, _UI_PORT_OFFSET) if ui_port is None else ui_port,
            api_port=api_port if serves_api else None,
            simulate=simulate,
            accept_server_version=accept_server_version,
        )


def _beside(temporal_port: int, offset: int) -> int:
    shifted = temporal_port + offset
    return shifted if temporal_port and shifted <= HIGHEST_PORT else 0
