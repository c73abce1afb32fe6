"""Who sits at this face. Nobody proves it here: whoever has the key that signs is believed."""

import getpass
import os

from runlane.settings import Settings


def person(settings: Settings) -> str:
    """Return who decides, stops or asks for a run here: as the settings say, else as the system.

    Args:
        settings: with `RUNLANE_PERSON`, where it is set.
    """
    if settings.person is not None:
        return settings.person
    try:
        # Deferred: Windows hasn't got it. By number, for variables such as USER may say anything.
        import pwd  # noqa: PLC0415

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        pass
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # In a container whose user has no name.
        return f"uid {os.getuid()}"
