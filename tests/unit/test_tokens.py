"""Tokens as people make, list and revoke them where no API runs: right on the ledger."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from ledger import Ledger, Location
from ledger.stops import TRAIL
from runlane import tokens
from runlane.cli.app import run
from tests.ledgers import open_in

DAY = 86_400


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of the test's own, and somebody who works on it."""
    found = tmp_path / "data"

    async def make() -> None:
        await (await open_in(found)).close()

    asyncio.run(make())
    for name in ("API_URL", "DATABASE_URL", "DATABASE_URL_FILE"):
        monkeypatch.delenv(f"RUNLANE_{name}", raising=False)
    monkeypatch.setenv("RUNLANE_DATA_DIR", str(found))
    monkeypatch.setenv("RUNLANE_PERSON", "root")
    return found


def create(*options: str, name: str = "shop") -> list[str]:
    """Return the arguments of a `create`."""
    return ["token", "create", "--name", name, "--person", "ann", "--role", "operator", *options]


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what a command has printed as JSON."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_secret_is_shown_once(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    """Alone on standard output, to be put into a variable; it is in no list and no file."""
    assert 0 == run(create())
    said = capsys.readouterr()
    secret = said.out.strip()

    assert re.fullmatch(r"rl_[\w-]{43}", secret)
    assert "Token shop for ann, who is operator. It is not shown again:" in said.err
    assert 0 == run(["token", "list", "--json"])
    listed = document(capsys)["data"]
    assert [("shop", "ann", "operator", "root", None)] == [
        (each["name"], each["person"], each["role"], each["made_by"], each["expires_at"])
        for each in listed
    ]
    assert secret not in str(listed)
    assert tokens.digest_of(secret) not in str(listed)
    files = [path.read_bytes() for path in data_dir.iterdir()]
    assert any(tokens.digest_of(secret).encode() in each for each in files)
    assert not any(secret.encode() in each for each in files)


def test_a_duration_becomes_an_instant_once(capsys: pytest.CaptureFixture[str]) -> None:
    """`--expires 90d` is reckoned when the token is made, and stands in every list."""
    began = time.time()
    assert 0 == run(create("--expires", "90d", "--group", "desk", "--group", "board", "--json"))
    made = document(capsys)

    assert began + 90 * DAY <= made["expires_at"] + 0.001
    assert made["expires_at"] <= time.time() + 90 * DAY
    assert ["desk", "board"] == made["groups"]
    assert made["token"].startswith("rl_")
    assert 0 == run(["token", "list", "--json"])
    [listed] = document(capsys)["data"]
    assert {**listed, "token": made["token"]} == made


def test_the_first_token_says_that_it_closes_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    """To whoever reads it, and once: no later token does, though the first one is revoked."""
    closes = "From now on every caller needs a token, programs on this machine too."
    said = []
    for name in ("one", "two"):
        assert 0 == run(create(name=name))
        said.append(closes in capsys.readouterr().err)
        assert 0 == run(["token", "revoke", name])

    assert [True, False] == said


def test_groups_are_split_as_in_the_variable(capsys: pytest.CaptureFixture[str]) -> None:
    """By commas, as `RUNLANE_GROUPS` is; the option can come several times, too."""
    assert 0 == run(create("--group", "desk, board", "--group", "night", "--json"))
    assert ["desk", "board", "night"] == document(capsys)["groups"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ["--role", "boss"],
            "Invalid value for '--role': 'boss' is not one of 'reader', 'operator', ",
        ),
        (["--expires", "soon"], "--expires: 'soon' is not a duration: write 250ms"),
    ],
)
def test_an_option_that_can_not_be_read_is_named(
    capsys: pytest.CaptureFixture[str], args: list[str], text: str
) -> None:
    """In one sentence that says what can be given, in no library's words."""
    assert 2 == run(create(*args))
    assert f"Error: {text}" in " ".join(capsys.readouterr().err.split())


def test_a_name_is_taken_until_it_is_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes: 8 for a name that is taken, 6 for one that nobody has."""
    assert 0 == run(create())
    assert 8 == run(create())
    assert 0 == run(["token", "revoke", "shop"])
    assert 6 == run(["token", "revoke", "shop"])
    assert 0 == run(create())

    capsys.readouterr()
    assert 0 == run(["token", "list"])
    assert 1 == capsys.readouterr().out.count("shop")


@pytest.mark.parametrize(
    ("args", "param"),
    [
        (create(name="../shop"), "name"),
        (create("--expires", "soon"), "--expires"),
        (create("--expires", "0"), "--expires"),
        (create("--expires", "99999999d"), "expires_at"),
        (create("--group", ""), "groups"),
        (create("--person", "a\nb"), "person"),
    ],
)
def test_what_can_not_be_is_refused(
    capsys: pytest.CaptureFixture[str], args: list[str], param: str
) -> None:
    """With exit code 2 and the name at fault; no token is made."""
    assert 2 == run([*args, "--json"])
    assert param == document(capsys)["error"]["param"]

    assert 0 == run(["token", "list"])
    assert "There are no tokens.\n" == capsys.readouterr().out


def test_the_own_token_of_up_is_marked_and_stays(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """In the list and in JSON; who revokes it is refused, for commands here need it."""

    async def make() -> None:
        async with await Ledger.open(Location.in_directory(data_dir)) as ledger:
            await tokens.create(
                ledger, name="up-1", person="ann", role="admin", made_by="ann", is_ups=True
            )

    asyncio.run(make())
    assert 0 == run(create())
    assert 8 == run(["token", "revoke", "up-1"])
    assert "It ends with `runlane up`." in capsys.readouterr().err
    assert 0 == run(["token", "list", "--json"])
    assert {"shop": False, "up-1": True} == {
        each["name"]: each["up"] for each in document(capsys)["data"]
    }
    assert 0 == run(["token", "list"])
    [shop, ups] = capsys.readouterr().out.splitlines()[-2:]
    assert (False, True) == ("runlane up's own" in shop, "runlane up's own" in ups)


def test_the_trail_says_who_made_what(data_dir: Path) -> None:
    """Making and revoking are rows of `control`, with the role, and without a secret."""
    assert 0 == run(create("--group", "desk"))
    assert 0 == run(["token", "revoke", "shop"])

    async def read() -> list[dict[str, Any]]:
        async with await Ledger.open(Location.in_directory(data_dir)) as ledger:
            return [json.loads(row.body) for row in await ledger.audit.read(TRAIL)]

    made, revoked = asyncio.run(read())

    assert {
        "what": "create", "scope": "token shop", "by": "root", "person": "ann",
        "role": "operator", "groups": ["desk"], "for_proxy": False,
    } == made["facts"]  # fmt: skip
    assert {"what": "revoke", "scope": "token shop", "by": "root"} == revoked["facts"]
    assert "sha256" not in str(made["facts"])


def test_a_ledger_that_nobody_uses_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A token is made before the first server starts; a mistyped directory is said all the same."""
    monkeypatch.setenv("RUNLANE_DATA_DIR", str(tmp_path / "other"))

    assert 0 == run(create())
    assert "Perhaps no API obeys this." in capsys.readouterr().err


def test_secrets_are_told_from_other_services_keys() -> None:
    """By their first letters; two are never the same."""
    assert tokens.is_ours(tokens.new_secret())
    assert not tokens.is_ours("sk-proj-1")
    assert 100 == len({tokens.new_secret() for _ in range(100)})
