"""What the holder of a token may do.

| role | may |
|---|---|
| `reader` | read their own runs, their steps and messages |
| `operator` | that, and create, answer, cancel and stop their own runs |
| `approver` | read, and decide calls that wait for people, whoever's the run is |
| `admin` | everything, and everybody's |
"""

from enum import StrEnum


class Role(StrEnum):
    """What a token is for."""

    READER = "reader"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Power(StrEnum):
    """What an operation needs."""

    READ = "read"
    RUN = "run"
    DECIDE = "decide"
    ADMINISTER = "administer"


POWERS = {
    Role.READER: frozenset({Power.READ}),
    Role.OPERATOR: frozenset({Power.READ, Power.RUN}),
    Role.APPROVER: frozenset({Power.READ, Power.DECIDE}),
    Role.ADMIN: frozenset(Power),
}
