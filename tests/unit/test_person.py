"""Who sits at a face: the settings' person, else the system's user."""

import os
import pwd

import pytest

from runlane.person import person
from runlane.settings import Settings


def test_the_settings_name_the_person() -> None:
    """As they say."""
    assert "Ann Lee" == person(Settings(person="Ann Lee"))


def test_else_it_is_the_systems_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number: the variables of a shell may say anything."""
    monkeypatch.setenv("USER", "somebody else")
    monkeypatch.setenv("LOGNAME", "somebody else")

    assert pwd.getpwuid(os.getuid()).pw_name == person(Settings())


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)

    assert "uid 4000000000" == person(Settings())
