"""The OpenAPI document: what it promises of every operation, whoever adds one."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from runlane.api.app import create_app

ENVELOPE = {"$ref": "#/components/schemas/ErrorEnvelope"}
OPEN = ("/healthz", "/readyz")
"""Asked without a token."""
SSE = "text/event-stream"
FORM = "multipart/form-data"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(None).openapi()  # type: ignore[arg-type]  # nothing is served


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return each operation with its method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def of_json(part: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a JSON body."""
    schema: dict[str, Any] = part["content"]["application/json"]["schema"]
    return schema


def body_schema(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an operation's body, which may be left out or not, or a form."""
    content = operation["requestBody"]["content"]
    if FORM in content:
        form: dict[str, Any] = content[FORM]["schema"]
        return form
    schema = of_json(operation["requestBody"])
    [ref] = [each["$ref"] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each]
    found: dict[str, Any] = document["components"]["schemas"][ref.rpartition("/")[2]]
    return found


def test_each_body_has_an_example_that_fits(document: dict[str, Any]) -> None:
    """Whoever reads the document can send what it shows."""
    seen = 0
    for _, _, operation in operations(document):
        if "requestBody" not in operation:
            continue
        schema = body_schema(document, operation)
        [example] = schema["examples"]
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(example)
        seen += 1
    assert 10 < seen


def test_each_path_parameter_has_an_example_that_fits(document: dict[str, Any]) -> None:
    """Ids have a form, and the document shows it."""
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                schema = parameter["schema"]
                assert schema.get("examples"), (method, path, parameter["name"])
                jsonschema.Draft202012Validator(schema).validate(schema["examples"][0])


def test_errors_are_documented_as_they_are_told(document: dict[str, Any]) -> None:
    """In the protocol's envelope, by the statuses that occur; FastAPI's own 422 never does."""
    for method, path, operation in operations(document):
        where, answers = f"{method} {path}", operation["responses"]
        assert "422" not in answers, where
        expected = {"default"} if path not in OPEN else set()
        is_sent = "parameters" in operation or "requestBody" in operation
        expected |= {"400", "404"} if is_sent else set()
        expected |= {"401", "403", "500", "503"} if path not in OPEN else set()
        expected |= {"408", "413", "415"} if "requestBody" in operation else set()
        assert expected <= set(answers), where
        for status, answer in answers.items():
            if not status.startswith("2") and path not in OPEN:
                assert ENVELOPE == of_json(answer), (where, status)


def test_what_may_stream_says_so(document: dict[str, Any]) -> None:
    """Where a body can ask for a stream, the answer is JSON or server-sent events."""
    streams = set()
    for _, _, operation in operations(document):
        if "requestBody" not in operation:
            continue
        if "stream" in body_schema(document, operation)["properties"]:
            streams.add(operation["operationId"])
            content = operation["responses"]["200"]["content"]
            assert {"application/json", SSE} == set(content), operation["operationId"]
    assert {"createThreadAndRun", "createRun", "submitToolOutputsToRun"} == streams
