"""Bodies of requests: what JSON can say, and not everything that reads it can write again."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

MAX_LEVELS = 100
"""Of lists and objects in each other. Python's own writers of JSON end soon after."""


class Plain(BaseModel):
    """A body that holds text and isn't too deep, in the fields that nobody knows, too."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _is_plain(cls, body: Any) -> Any:
        waiting = [(body, 0)]
        while waiting:
            value, level = waiting.pop()
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict | list):
                if level == MAX_LEVELS:
                    text = f"The body is nested deeper than {MAX_LEVELS} levels"
                    raise ValueError(text)
                within = [*value, *value.values()] if isinstance(value, dict) else value
                waiting += [(each, level + 1) for each in within]
        return body


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        # From None: its own message would hold the text.
        problem = "The body holds half of a surrogate pair, which is no text"
        raise ValueError(problem) from None
