"""Fixtures of the durable tier."""

from collections.abc import Iterator

import pytest

from tests.lab import Lab
from tests.outsider import Outsider


@pytest.fixture
def outsider(lab: Lab) -> Iterator[Outsider]:
    """Somebody else at this lab's upstream."""
    somebody = Outsider(lab)
    yield somebody
    somebody.close()
