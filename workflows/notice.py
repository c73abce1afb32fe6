"""What a run knows of its notices: part of the state."""

from pydantic import BaseModel, ConfigDict

from activities.notify import Notice


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class AskedCall(_State):
    """A call for which people were asked by a notice, and not yet told that it is decided."""

    notice: Notice
    """The latest one."""
    group: int = 0
    """Index of the group that was told last."""
    reminders: int = 0


class OpenNotice(_State):
    """A notice that isn't with all receivers yet."""

    notice: Notice
    until_at: float
    """Unix seconds, at which it is given up."""


class LeftNotices(_State):
    """Input of the workflow that sends what a run that has ended left."""

    notices: list[OpenNotice]
