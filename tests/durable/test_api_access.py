"""Who may do what at the API as it is served: tokens, roles, owners, and the open mode."""

import asyncio
import json
import os
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from ledger.tokens import Token
from runlane import own_api, tokens
from runlane.api.access import Role
from runlane.api.app import create_app
from runlane.roles import POWERS, Power
from tests.api import Api, serving
from tests.lab import Lab

pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
OPEN = {"/healthz", "/readyz"}
"""What probes ask without a token."""
WRONG = "Incorrect API key provided."


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    """An API that asks everybody for a token."""
    async with serving(lab, local=None) as served:
        yield served


def routes() -> Iterator[tuple[str, str, Power | None]]:
    """Return each operation of the OpenAPI document: method, a path, and the power it needs."""
    document = create_app(None).openapi()  # type: ignore[arg-type]  # nothing is served
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            powers = [each["token"] for each in operation.get("security", []) if "token" in each]
            power = Power(powers[0][0]) if powers else None
            yield method.upper(), re.sub(r"\{\w+\}", "x_1", path), power


async def ask(api: Api, method: str, path: str, token: str | None) -> httpx.Response:
    """Ask without a body: who may not learns that first."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    url = api.url.removesuffix("/v1") + path
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        return await client.request(method, url)


async def bare(url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Ask without a token."""
    async with httpx.AsyncClient(headers=headers) as client:
        return await client.get(url)


async def expired(api: Api) -> str:
    """Return the secret of a token that has counted until a moment ago."""
    secret, now = tokens.new_secret(), datetime.now(UTC)
    token = Token(
        digest=tokens.digest_of(secret),
        name="expired",
        person="ann",
        role=Role.ADMIN,
        made_by="root",
        made_at=now - timedelta(days=90),
        expires_at=now,
    )
    await api.services.ledger.tokens.create(token)
    return secret


async def test_every_route_asks_for_a_token(api: Api) -> None:
    """None, a wrong, an expired and a revoked one get 401, all but the first with one text."""
    revoked = await api.token(Role.ADMIN, name="revoked")
    await tokens.revoke(api.services.ledger, "revoked", by="root")
    api.services.access.known.forget()
    wrong = [tokens.new_secret(), "sk-something", await expired(api), revoked]
    found = list(routes())

    assert OPEN == {path for _, path, power in found if power is None}
    for method, path, power in found:
        if power is None:
            assert 200 == (await ask(api, method, path, None)).status_code
            continue
        answers = [await ask(api, method, path, token) for token in [None, *wrong]]
        assert [401] * 5 == [each.status_code for each in answers], (method, path)
        assert {"Bearer"} == {each.headers["www-authenticate"] for each in answers}
        assert {WRONG} == {each.json()["error"]["message"] for each in answers[1:]}
        assert {"invalid_api_key"} == {each.json()["error"]["code"] for each in answers}


async def test_every_route_refuses_too_small_a_role(api: Api) -> None:
    """Each role whose powers lack the one that a route names gets 403 there."""
    held = {role: await api.token(role) for role in Role}
    seen = set()

    for method, path, power in routes():
        for role in Role:
            if power is None or power in POWERS[role]:
                continue
            answer = await ask(api, method, path, held[role])
            assert 403 == answer.status_code, (method, path, role)
            assert "role_too_small" == answer.json()["error"]["code"]
            seen.add((power, role))

    assert {(Power.RUN, Role.READER), (Power.RUN, Role.APPROVER)} <= seen
    assert {(Power.ADMINISTER, role) for role in Role if role is not Role.ADMIN} <= seen


async def test_the_sdk_raises_what_it_raises_elsewhere(api: Api, lab: Lab) -> None:
    """`AuthenticationError` and `PermissionDeniedError`; Azure's header is read too."""
    reader = await api.token(Role.READER)

    with pytest.raises(openai.AuthenticationError, match=WRONG):
        await api.sdk("sk-1").beta.threads.runs.list(thread_id=lab.thread_id)
    with pytest.raises(openai.PermissionDeniedError, match="operator or admin"):
        await api.sdk(reader).beta.threads.runs.create(
            thread_id=lab.thread_id, assistant_id=lab.assistant_id
        )
    async with httpx.AsyncClient(headers={"api-key": reader}) as client:
        answer = await client.get(f"{api.url}/threads/{lab.thread_id}/runs")
    assert 200 == answer.status_code


async def test_a_run_is_there_for_its_owner_alone(api: Api, lab: Lab) -> None:
    """Another owner finds it nowhere, in no way of asking; an admin does."""
    ann, bob = api.http(await api.token(person="ann")), api.http(await api.token(person="bob"))
    admin = api.http(await api.token(Role.ADMIN, person="root"))
    path = f"/threads/{lab.thread_id}/runs"
    body = {"assistant_id": lab.assistant_id, "tools": [TOOL]}
    created = await ann.post(path, json=body)
    run_id = created.json()["id"]
    await until_listed(ann, path, run_id)
    one = f"{path}/{run_id}"
    output = {"tool_outputs": [{"tool_call_id": "call_1", "output": "x"}]}

    tries = [
        await bob.get(one),
        await bob.post(one, json={"metadata": {"a": "b"}}),
        await bob.post(f"{one}/cancel"),
        await bob.post(f"{one}/submit_tool_outputs", json=output),
        await bob.get(f"{one}/steps"),
        await bob.get(f"{one}/steps/step_1"),
    ]

    text = f"No run found with id '{run_id}'."
    assert [(404, text)] * 6 == [(t.status_code, t.json()["error"]["message"]) for t in tries]
    assert [] == (await bob.get(path)).json()["data"]
    assert [run_id] == [run["id"] for run in (await admin.get(path)).json()["data"]]
    seen = (await admin.get(one, params={"include[]": "runlane"})).json()
    assert "ann" == seen["runlane"]["owner"]
    assert {} == seen["metadata"]
    assert "cancelling" != seen["status"] != "cancelled"


async def test_an_idempotency_key_is_its_owners(api: Api, lab: Lab) -> None:
    """The same key from another owner meets nothing: it begins a run of its own."""
    body = {"assistant_id": lab.assistant_id, "tools": [TOOL]}
    key = {"idempotency-key": secrets.token_hex(8)}
    ann, bob = api.http(await api.token(person="ann")), api.http(await api.token(person="bob"))
    others = f"/threads/thread_{secrets.token_hex(6)}/runs"

    first = await ann.post(f"/threads/{lab.thread_id}/runs", json=body, headers=key)
    second = await bob.post(others, json=body, headers=key)
    again = await bob.post(others, json=body, headers=key)

    assert [200, 200, 200] == [each.status_code for each in (first, second, again)]
    assert first.json()["id"] != second.json()["id"] == again.json()["id"]
    assert 404 == (await ann.get(f"{others}/{second.json()['id']}")).status_code


async def until_listed(client: httpx.AsyncClient, path: str, run_id: str) -> None:
    """Wait until Visibility has heard of a run."""
    async with asyncio.timeout(30):
        while run_id not in (await client.get(path)).text:
            await asyncio.sleep(0.1)


async def test_a_revoked_token_counts_nowhere_after_five_seconds(api: Api, lab: Lab) -> None:
    """At once at the server that revokes it; within 5 s at another one that has just used it."""
    path = f"/threads/{lab.thread_id}/runs"
    secret = await api.token(name="gone")
    admin = api.http(await api.token(Role.ADMIN))
    async with serving(lab, local=None) as other:
        elsewhere, here = other.http(secret), api.http(secret)
        assert 200 == (await elsewhere.get(path)).status_code
        assert 200 == (await here.get(path)).status_code

        assert 200 == (await admin.delete("/tokens/gone")).status_code
        began = time.monotonic()
        assert 401 == (await here.get(path)).status_code
        while (await elsewhere.get(path)).status_code == 200:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.1)
        assert 401 == (await elsewhere.get(path)).status_code


async def test_tokens_are_made_listed_and_revoked_over_http(api: Api, lab: Lab) -> None:
    """The secret is in the first answer and nowhere else; who made it is the admin's person."""
    admin = api.http(await api.token(Role.ADMIN, person="root", name="roots"))
    ends = time.time() + 3600
    asked = {
        "name": "shop", "person": "shop", "role": "operator", "groups": ["desk"],
        "expires_at": ends,
    }  # fmt: skip
    made = (await admin.post("/tokens", json=asked)).json()
    secret = made.pop("token")

    assert secret.startswith("rl_")
    assert len(secret) >= 3 + 43
    listed = await admin.get("/tokens")
    assert ["roots", "shop"] == [each["name"] for each in listed.json()["data"]]
    assert made == listed.json()["data"][1]
    assert ("root", ["desk"]) == (made["made_by"], made["groups"])
    assert abs(ends - made["expires_at"]) < 1
    assert secret not in listed.text
    used = await api.http(secret).get(f"/threads/{lab.thread_id}/runs")
    assert 200 == used.status_code

    again = await admin.post("/tokens", json=asked)
    assert (409, "token_exists") == (again.status_code, again.json()["error"]["code"])
    revoked = await admin.delete("/tokens/shop")
    assert revoked.json()["revoked_at"] is not None
    gone = await admin.delete("/tokens/shop")
    assert (404, "token_not_found") == (gone.status_code, gone.json()["error"]["code"])


async def test_the_token_of_up_is_not_revoked(api: Api, tmp_path: Path) -> None:
    """By nobody who asks; where it counts no more, commands name its file, and the way out."""
    ups = await api.token(Role.ADMIN, person="ann", name="up-1", is_ups=True)
    admin = api.http(await api.token(Role.ADMIN, name="roots"))
    (tmp_path / own_api.FILE).write_text(
        json.dumps({"url": api.url, "person": "ann", "groups": []})
    )
    (tmp_path / own_api.TOKEN_FILE).write_text(ups)
    beside = {"RUNLANE_DATA_DIR": str(tmp_path), "RUNLANE_PERSON": "ann"}

    refused = await admin.delete("/tokens/up-1")
    listed = (await admin.get("/tokens")).json()["data"]
    used = await runlane("stops", **beside)
    await tokens.revoke(api.services.ledger, "up-1", by="ann", is_up=True)
    api.services.access.known.forget()
    code, _, err = await runlane("stops", **beside)

    assert (409, "ups_own_token") == (refused.status_code, refused.json()["error"]["code"])
    assert [("roots", False), ("up-1", True)] == [(each["name"], each["up"]) for each in listed]
    assert 0 == used[0], used[2]
    assert 8 == code
    words = " ".join(err.split())
    assert f"The token in {tmp_path / own_api.TOKEN_FILE} counts no more" in words
    assert "restart `runlane up`" in words
    assert "RUNLANE_TOKEN" not in words


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": "a b"}, "name"),
        ({"name": ".."}, "name"),
        ({"person": " "}, "person"),
        ({"person": "a\nb"}, "person"),
        ({"role": "root"}, "role"),
        ({"groups": ["x" * 256]}, "groups"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_at": 1e300}, "expires_at"),
        ({"secret": "rl_1"}, "secret"),
    ],
)
async def test_a_token_that_can_not_be_is_refused(
    api: Api, change: dict[str, Any], param: str
) -> None:
    """By the name of the field; none is made."""
    admin = api.http(await api.token(Role.ADMIN, name="roots"))

    answer = await admin.post(
        "/tokens", json={"name": "shop", "person": "shop", "role": "reader", **change}
    )

    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])
    assert ["roots"] == [each.name for each in await api.services.ledger.tokens.standing()]


OTHERS = [
    {"host": "evil.test"},
    {"host": "127.0.0.1.evil.test:8400"},
    {"origin": "http://evil.test"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:3000"},
    {"sec-fetch-site": "cross-site"},
    {"x-forwarded-for": "127.0.0.1"},
    {"authorization": f"Bearer {tokens.new_secret()}"},
]


async def test_this_machine_is_served_without_a_token_until_one_is_made(lab: Lab) -> None:
    """As the local person, an SDK's made-up key notwithstanding; `up`'s own token doesn't count."""
    path = f"/threads/{lab.thread_id}/runs"
    async with serving(lab) as api:
        ups = await api.token(Role.ADMIN, is_ups=True)
        same = {"origin": api.url.removesuffix("/v1"), "sec-fetch-site": "same-origin"}
        served = [
            await api.http("sk-any").get(path),
            await api.http(ups).get(path),
            await bare(api.url + path, same),
        ]
        assert [200] * 3 == [each.status_code for each in served]
        for headers in OTHERS:
            refused = await bare(api.url + path, headers)
            assert 401 == refused.status_code, headers

        made = await api.http().post(
            "/tokens", json={"name": "first", "person": "ann", "role": "reader"}
        )
        assert ("ada", 401) == (
            made.json()["made_by"], (await api.http("sk-any").get(path)).status_code,
        )  # fmt: skip
        assert 200 == (await api.http(made.json()["token"]).get(path)).status_code
        assert 200 == (await api.http(ups).get(path)).status_code
        await tokens.revoke(api.services.ledger, "first", by="ada")
        assert 401 == (await api.http("sk-any").get(path)).status_code


async def owner(client: httpx.AsyncClient, lab: Lab, **headers: str) -> str:
    """Begin a run on a new thread, and return whose it is."""
    path = f"/threads/thread_{secrets.token_hex(6)}/runs"
    body = {"assistant_id": lab.assistant_id, "tools": [TOOL]}
    query = {"include[]": "runlane"}
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = await client.post(path, json=body, headers=given, params=query)
    assert 200 == answer.status_code, answer.text
    return str(answer.json()["runlane"]["owner"])


async def test_only_a_proxys_token_names_other_people(lab: Lab) -> None:
    """In the header that was set, within the token's role; anybody else's is not read."""
    header = "x-forwarded-user"
    async with serving(lab, local=None, trusted_user_header=header) as api:
        proxy = api.http(await api.token(person="sso", is_for_proxy=True))
        ann = api.http(await api.token(person="ann"))

        assert "eve" == await owner(proxy, lab, **{header: "eve"})
        assert "Žofie" == await owner(proxy, lab, **{header: "Žofie"})
        assert "sso" == await owner(proxy, lab)
        assert "ann" == await owner(ann, lab, **{header: "eve"})
        assert 403 == (await proxy.get("/tokens", headers={header: "root"})).status_code
        two = await proxy.get(
            f"/threads/{lab.thread_id}/runs", headers=[(header, "eve"), (header, "root")]
        )
        assert (400, header) == (two.status_code, two.json()["error"]["param"])
        alone = await bare(f"{api.url}/threads/{lab.thread_id}/runs", {header: "eve"})
        assert 401 == alone.status_code

    async with serving(lab, local=None) as api:
        off = api.http(await api.token(person="sso2", is_for_proxy=True))
        assert "sso2" == await owner(off, lab, **{header: "eve"})


async def test_nobody_is_let_in_while_the_ledger_does_not_answer(lab: Lab) -> None:
    """503, to be tried again: neither in, nor told that the token is wrong."""
    async with serving(lab, local=None) as api:
        secret = await api.token()
        await api.services.ledger.close()
        answer = await api.http(secret).get(f"/threads/{lab.thread_id}/runs")
        ready = await ask(api, "GET", "/readyz", None)

    assert (503, "ledger_unreachable") == (answer.status_code, answer.json()["error"]["code"])
    assert (503, "no answer from the ledger") == (ready.status_code, ready.json()["reason"])


async def test_probes_and_scrapers(api: Api, lab: Lab) -> None:
    """Alive and ready without a token; figures with one, by route and never by path."""
    token = await api.token(Role.READER, name="prometheus")
    await api.http(token).get(f"/threads/{lab.thread_id}/runs")

    assert {"status": "ok"} == (await ask(api, "GET", "/healthz", None)).json()
    assert {"status": "ok"} == (await ask(api, "GET", "/readyz", None)).json()
    figures = await ask(api, "GET", "/metrics", token)
    assert figures.headers["content-type"].startswith("text/plain")
    label = 'route="/v1/threads/{thread_id}/runs"'
    assert f'runlane_api_requests_total{{method="GET",{label},status="200"}}' in figures.text
    assert "runlane_build_info" in figures.text
    assert lab.thread_id not in figures.text


async def test_the_log_names_the_token_and_no_path(
    api: Api, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """The token's name, the route as a template; neither ids nor query, nor the secret."""
    token = await api.token(Role.READER, name="looker")
    with caplog.at_level("DEBUG", "runlane.api"):
        await api.http(token).get(f"/threads/{lab.thread_id}/runs", params={"after": "hush"})

    [line] = [each for each in caplog.records if each.name == "runlane.api"]
    assert "by looker" in line.getMessage()
    assert line.getMessage().startswith("GET /v1/threads/{thread_id}/runs ")
    for word in (lab.thread_id, "hush", token, tokens.digest_of(token)):
        assert word not in caplog.text


async def runlane(*args: str, **environ: str) -> tuple[int, str, str]:
    """Call the command line where nothing but the API is named; exit code, output, words."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNLANE_", "TEMPORAL_"))
    }
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("runlane")),
        *args,
        env={**kept, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_goes_through_the_api(api: Api, tmp_path: Path) -> None:
    """It needs neither Temporal nor the ledger; texts and exit codes are as without the API."""
    file = tmp_path / "token"
    file.write_text(await api.token(Role.ADMIN, person="root", name="roots"))
    admin = {"RUNLANE_API_URL": api.url, "RUNLANE_TOKEN_FILE": str(file)}
    reader = {"RUNLANE_API_URL": api.url, "RUNLANE_TOKEN": await api.token(Role.READER)}
    create = [
        "token",
        "create",
        "--name",
        "shop",
        "--person",
        "ann",
        "--role",
        "operator",
        "--expires",
        "1h",
    ]

    code, out, err = await runlane(*create, **admin)
    assert (0, True) == (code, tokens.is_ours(out)), err
    [made] = [each for each in await api.services.ledger.tokens.standing() if each.name == "shop"]
    assert ("root", tokens.digest_of(out.strip())) == (made.made_by, made.digest)
    assert 8 == (await runlane(*create, **admin))[0]
    code, out, _ = await runlane("token", "revoke", "shop", "--json", **admin)
    assert (0, "shop") == (code, json.loads(out)["name"])
    assert 6 == (await runlane("token", "revoke", "shop", **admin))[0]
    code, _, err = await runlane("token", "list", **reader)
    assert (8, True) == (code, "This needs a token of the role admin" in err)
    code, _, err = await runlane("token", "list", RUNLANE_API_URL=api.url)
    assert (8, True) == (code, "RUNLANE_TOKEN" in err)
    code, _, err = await runlane("token", "list", RUNLANE_API_URL="http://127.0.0.1:9/v1")
    assert (5, True) == (code, "The API at http://127.0.0.1:9/v1 can't be reached" in err)


async def test_the_command_that_closes_an_open_api_says_so(lab: Lab) -> None:
    """The first one through it, which needs no token itself; a later one, by a token, doesn't."""
    fields = ("--person", "ada", "--role", "admin")
    async with serving(lab) as api:
        environ = {"RUNLANE_API_URL": api.url}
        first = await runlane("token", "create", "--name", "one", *fields, **environ)
        environ["RUNLANE_TOKEN"] = first[1].strip()
        second = await runlane("token", "create", "--name", "two", *fields, **environ)

    closes = "From now on every caller needs a token"
    assert [(0, True), (0, False)] == [(code, closes in err) for code, _, err in (first, second)]


def test_a_token_shows_its_secret_to_no_log() -> None:
    """What was made can be printed."""
    token = Token(
        digest=tokens.digest_of("rl_hush"), name="n", person="p", role="reader", made_by="m",
        made_at=datetime.now(UTC),
    )  # fmt: skip

    assert "rl_hush" not in repr(tokens.Made(token, "rl_hush"))
