"""Tools declared in a file, against a real server in a process of its own."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from runlane import Registry, ToolContext
from runlane.errors import InvalidTool
from runlane.tools.answer import AnswerKind, ToolAnswer
from runlane.tools.deadline import DeadlineOutcome
from runlane.tools.declared import read_file
from runlane.tools.http import HttpRequest
from runlane.tools.policy import Policy
from tests.tool_server import ToolServer, tool_server

CONTEXT = ToolContext(run_id="run_1", call_id="call_1", idempotency_key="key-1")
SECRET = "4711-secret"
SIGNING_SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="


@pytest.fixture(scope="module")
def server() -> Iterator[ToolServer]:
    """Somebody else's server."""
    with tool_server() as running:
        yield running


def registry(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Registry:
    """Read a file that holds this."""
    file = tmp_path / "runlane.toml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return Registry(read_file(file, environ or {}))


async def called(
    tmp_path: Path, table: str, arguments: str = "{}", **environ: str
) -> tuple[ToolAnswer, HttpRequest]:
    """Declare the tool `work` and call it once."""
    tools = registry(tmp_path, f'[tools.work]\ndescription = "Work."\n{table}', environ)
    body = tools["work"].body
    assert isinstance(body, HttpRequest)
    return await tools.invoke("work", arguments, CONTEXT), body


async def test_a_call_is_a_request(tmp_path: Path, server: ToolServer) -> None:
    """With the arguments as its body, the secrets from variables, the key and the signature."""
    table = f"""
    url = "{server.url}/text/refunds?shop=7"
    method = "PUT"
    signing_secret = "${{SIGNING}}"
    [tools.work.headers]
    Authorization = "Bearer ${{TOKEN}}"
    X-Shop = "berlin"
    user-agent = "shop"
    [tools.work.parameters]
    required = ["order"]
    [tools.work.parameters.properties]
    order = {{type = "string"}}
    amount = {{type = "integer"}}
    """

    arguments = '{ "order": "größe", "amount": 5 }'
    answer, _ = await called(
        tmp_path, textwrap.dedent(table), arguments, TOKEN=f" {SECRET}\n", SIGNING=SIGNING_SECRET
    )

    assert ToolAnswer("größe", AnswerKind.RETURNED) == answer
    got = server.received()[-1]
    assert ("PUT", "/text/refunds", "shop=7") == (got["method"], got["path"], got["query"])
    assert '{"amount":5,"order":"größe"}' == got["body"]
    headers = got["headers"]
    assert ("application/json", "identity") == (headers["content-type"], headers["accept-encoding"])
    assert f"Bearer {SECRET}" == headers["authorization"]
    assert ("berlin", "key-1") == (headers["x-shop"], headers["idempotency-key"])
    assert ("key-1", "shop") == (headers["webhook-id"], headers["user-agent"])
    Webhook(SIGNING_SECRET).verify(got["body"], headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SIGNING_SECRET).verify(got["body"].replace("5", "6"), headers)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_arguments_of_a_request_without_a_body_stand_in_the_query(
    tmp_path: Path, server: ToolServer, method: str
) -> None:
    """Text as it is, escaped; anything else as JSON; beside what the URL has already."""
    table = f"""
    url = "{server.url}/text?shop=7"
    method = "{method}"
    idempotency_header = "X-Once"
    parameters = {{properties = {{q = {{type = "string"}}, n = {{type = "array"}}}}}}
    """

    answer, _ = await called(
        tmp_path, textwrap.dedent(table), '{"q": "a&shop=8 ü", "n": [1, true]}'
    )

    assert AnswerKind.RETURNED == answer.kind
    got = server.received()[-1]
    assert (method, "") == (got["method"], got["body"])
    assert "shop=7&q=a%26shop%3D8+%C3%BC&n=%5B1%2C+true%5D" == got["query"].replace("%20", "+")
    assert "key-1" == got["headers"]["x-once"]
    assert "idempotency-key" not in got["headers"]
    assert "content-type" not in got["headers"]


@pytest.mark.parametrize(
    ("path", "output"), [("text", "größe"), ("latin", "größe"), ("nothing", "")]
)
async def test_text_is_the_answer(
    tmp_path: Path, server: ToolServer, path: str, output: str
) -> None:
    """In the character set that the server names."""
    answer, _ = await called(tmp_path, f'url = "{server.url}/{path}"')

    assert ToolAnswer(output, AnswerKind.RETURNED) == answer


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("status/400", "HTTP 400"),
        ("status/503", "HTTP 503"),
        ("redirect", "HTTP 307"),
        ("binary", "its answer is no text"),
        # A codec whose time grows faster than the text: it held the whole process up for seconds.
        ("punycode", "its answer is no text"),
        ("packed", "its answer is packed"),
        ("endless", "its output is over 511,999 bytes"),
        ("lost", "RemoteProtocolError"),
    ],
)
async def test_whatever_goes_wrong_is_an_answer(
    tmp_path: Path, server: ToolServer, path: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fixed words for the model, asked once, followed nowhere, and nothing that the server said."""
    before = len(server.received())
    answer, _ = await called(tmp_path, f'url = "{server.url}/{path}"')

    assert ToolAnswer(f"The tool work failed: {error}.", AnswerKind.FAILED, error) == answer
    assert [f"/{path}"] == [request["path"] for request in server.received()[before:]]
    assert SECRET not in caplog.text


async def test_a_server_that_never_ends_its_answer_is_given_up(
    tmp_path: Path, server: ToolServer
) -> None:
    """The timeout holds for all of the request, not for the time between two bytes."""
    answer, _ = await called(tmp_path, f'url = "{server.url}/slow"\ntimeout = "1s"')

    assert AnswerKind.TIMED_OUT == answer.kind


async def test_nobody_listens(tmp_path: Path) -> None:
    """A server that isn't there is a failure, too."""
    with tool_server() as gone:
        url = gone.url
    answer, _ = await called(tmp_path, f'url = "{url}/text"')

    assert (AnswerKind.FAILED, "ConnectError") == (answer.kind, answer.error)


async def test_no_cookie_is_kept(tmp_path: Path, server: ToolServer) -> None:
    """What a server told one call doesn't reach it with another run's."""
    tools = registry(tmp_path, f'[tools.work]\ndescription = "W."\nurl = "{server.url}/cookie"')
    for _ in range(2):
        assert "ok" == (await tools.invoke("work", "", CONTEXT)).output

    assert "cookie" not in server.received()[-1]["headers"]


@pytest.mark.parametrize(
    ("table", "environ", "logged"),
    [
        ('headers = {X-Key = "${TOKEN}"}', {}, "TOKEN not set"),
        ('headers = {X-Key = "${TOKEN}"}', {"TOKEN": ""}, "TOKEN not set"),
        ('signing_secret = "${KEY}"', {}, "KEY not set"),
        ('signing_secret = "${KEY}"', {"KEY": "whsec_"}, "KEY holds no whsec_ key"),
        ('signing_secret = "${KEY}"', {"KEY": f"{SECRET}x"}, "KEY holds no whsec_ key"),
        ('headers = {X-Key = "${TOKEN}"}', {"TOKEN": f"{SECRET}\n1"}, "header X-Key"),
        ('headers = {X-Key = "${TOKEN}"}', {"TOKEN": f"{SECRET}ü"}, "header X-Key"),
    ],
)
async def test_a_secret_that_can_not_be_used_is_named_in_the_log(
    tmp_path: Path,
    server: ToolServer,
    table: str,
    environ: dict[str, str],
    logged: str,
    *,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is sent; the operator learns which, the model that it isn't set up."""
    before = len(server.received())
    answer, body = await called(tmp_path, f'url = "{server.url}/text"\n{table}', **environ)

    assert "The tool work failed: it isn't set up on this machine." == answer.output
    assert before == len(server.received())
    assert logged in caplog.text
    assert SECRET not in caplog.text + repr(body)
    assert ("not set" in logged) == bool(body.missing_variables())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "- 'order' is a required property"),
        ({"order": 7}, '- order: must fit type "string"'),
        ({"order": "A-1", "kind": SECRET}, '- kind: must fit enum ["a", "b"]'),
        ({"order": "A-1", "lines": [{"n": 0}]}, "- lines[0].n: must fit minimum 1"),
        ({"order": "A-1", "ordr": SECRET}, "- ordr: there is no such parameter; there are: order"),
        ({"order": "A-1", "lines": [{"m": 1}]}, "- lines[0]: m: there is no such parameter"),
        ({"order": "\ud83d"}, "half of a character"),
    ],
)
async def test_arguments_that_do_not_fit_are_not_sent(
    tmp_path: Path, server: ToolServer, arguments: dict[str, Any], told: str
) -> None:
    """The model is told the field and the rule, and never what it wrote."""
    table = f"""
    url = "{server.url}/text"
    [tools.work.parameters]
    required = ["order"]
    [tools.work.parameters.properties]
    order = {{type = "string"}}
    kind = {{enum = ["a", "b"]}}
    lines = {{type = "array", items = {{"$ref" = "#/$defs/line"}}}}
    [tools.work.parameters."$defs".line]
    properties = {{n = {{minimum = 1}}}}
    additionalProperties = false
    """
    before = len(server.received())
    answer, _ = await called(tmp_path, textwrap.dedent(table), json.dumps(arguments))

    assert AnswerKind.INVALID_ARGUMENTS == answer.kind
    assert told in answer.output
    assert SECRET not in answer.output
    assert before == len(server.received())


def big(arguments: dict[str, Any]) -> str:
    """Be a policy that a file names."""
    return "approve" if arguments["amount"] > 5 else "auto"


def test_a_file_takes_the_options_of_the_decorator(tmp_path: Path) -> None:
    """The same words, the same limits; a policy may be a function of a module."""
    tools = registry(
        tmp_path,
        """
        [tools.refund]
        description = "Refund."
        url = "https://shop.example.com/refunds"
        policy = "tests.unit.test_tool_http:big"
        groups = ["desk", "board"]
        deadline = "4h"
        outcome = "escalate"
        at_most_once = true
        [tools.look]
        description = "Look."
        url = "https://shop.example.com/orders"
        method = "GET"
        policy = "auto"
        read_only = true
        """,
    )

    refund, look = tools["refund"], tools["look"]
    assert ["look", "refund"] == [tool.name for tool in tools]
    assert DeadlineOutcome.ESCALATE is refund.options.outcome
    assert (True, False) == (refund.options.at_most_once, refund.options.read_only)
    assert Policy.APPROVE is refund.classify({"amount": 6}).policy
    assert Policy.AUTO is refund.classify({"amount": 5}).policy
    assert Policy.AUTO is look.options.policy
    assert f"{tmp_path / 'runlane.toml'} [tools.refund]" == refund.body.source
    assert {"type": "object", "properties": {}, "additionalProperties": False} == look.parameters


URL = 'description = "W."\nurl = "https://a.test"'


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('description = "W."', "url is missing"),
        ('url = "https://a.test"', "description is missing"),
        ('description = "W."\nurl = "ftp://a.test"', "url must be of the form https://"),
        ('description = "W."\nurl = "https://me:hush@a.test"', "url holds credentials"),
        ('description = "W."\nurl = "https://a.test/#x"', "url has a fragment"),
        (f'{URL}\nmethod = "HEAD"', "method must be one of GET, POST"),
        (
            f'{URL}\nheaders = {{Authorization = "Bearer hush"}}',
            "headers.Authorization is a secret",
        ),
        (f'{URL}\nheaders = {{"X Y" = "1"}}', "headers.X Y is not the name"),
        (f'{URL}\nheaders = {{Host = "b.test"}}', "headers.Host is a header that Runlane"),
        (f'{URL}\nheaders = {{X = "1", x = "2"}}', "each name there once"),
        (f'{URL}\nheaders = {{Idempotency-Key = "1"}}', "headers can't hold Idempotency-Key"),
        (f'{URL}\nheaders = {{X = "a\\nb"}}', "headers.X holds a character"),
        (f"{URL}\nheaders = {{X = 1}}", "headers.X must be a string"),
        (f'{URL}\nheaders = "X"', "headers must be a table"),
        (f'{URL}\nidempotency_header = "webhook-id"', "idempotency_header is a header that"),
        (f'{URL}\nsigning_secret = "whsec_hush"', "signing_secret must name a variable"),
        (f'{URL}\nparameters = {{type = "array"}}', "must be the schema of an object"),
        (f'{URL}\nparameters = {{properties = {{a = {{type = "text"}}}}}}', "is no JSON schema"),
        (f'{URL}\nparameters = {{"$ref" = "https://b.test/s"}}', "outside itself"),
        (f'{URL}\nparameters = {{"$ref" = "#/$defs/x"}}', "which isn't there"),
        (f'{URL}\npolicy = "always"', "policy must be auto, approve"),
        (f'{URL}\npolicy = "tests.nowhere:big"', "can't import tests.nowhere"),
        (f'{URL}\npolicy = "tests.tool_server:big"', "there is no big in tests.tool_server"),
        (f"{URL}\ndeadline = 17:00:00", "deadline must have a zone"),
        (f"{URL}\nretry = 3", "retry is not an option"),
    ],
)
def test_a_bad_declaration_names_file_tool_and_field(tmp_path: Path, table: str, told: str) -> None:
    """And says the limit, and repeats no secret."""
    with pytest.raises(InvalidTool, match=r"runlane\.toml: ") as caught:
        registry(tmp_path, f"[tools.work]\n{table}")

    assert told in caught.value.message
    assert "tool work: " in caught.value.message.lower()
    assert "hush" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tools", "is not TOML"),
        ("[toolz.a]", "toolz is not known here; there are tools and calendars"),
        ("tools = 1", "tools must be a table"),
        ("[tools]\nwork = 1", "tools.work must be a table"),
        (f'[tools."a b"]\n{URL}', "name must have 1 to 64 characters"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """By its name, with what is wrong."""
    with pytest.raises(InvalidTool, match=r"runlane\.toml") as caught:
        registry(tmp_path, text)

    assert told in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Whoever names one wants it read."""
    with pytest.raises(InvalidTool, match=r"Can't read .*none\.toml: No such file"):
        list(read_file(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(InvalidTool, match=r"latin\.toml is not UTF-8 text"):
        list(read_file(tmp_path / "latin.toml"))
