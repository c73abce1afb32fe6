"""Ids in paths, as the OpenAPI document describes them."""

from typing import Annotated

from fastapi import Path


def _id(description: str, example: str) -> object:
    return Path(min_length=1, max_length=255, description=description, examples=[example])


ThreadId = Annotated[str, _id("Id of a thread of the upstream.", "thread_orders")]
RunId = Annotated[str, _id("Id of a run of Runlane.", "run_TZDCJ4EB")]
StepId = Annotated[str, _id("Id of a step of the run.", "step_1")]
MessageId = Annotated[str, _id("Id of a message of the thread.", "msg_1")]
AssistantId = Annotated[str, _id("Id of an assistant of the upstream.", "asst_orders")]
CallId = Annotated[str, _id("The call's id, by the upstream.", "call_1")]
TokenName = Annotated[str, _id("As it was named when it was made.", "shop")]
