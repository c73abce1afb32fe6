"""The task queues beside that of workflows and effects, with slots of their own."""


def poll_task_queue(task_queue: str) -> str:
    """Return the queue of attached polls, which have slots of their own.

    With polls and effects in the same slots, a hundred waiting polls held up a cancel by 31 s.
    """
    return f"{task_queue}-poll"


def tools_task_queue(task_queue: str) -> str:
    """Return the queue of tools, which have slots of their own: some run for hours."""
    return f"{task_queue}-tools"


def notify_task_queue(task_queue: str) -> str:
    """Return the queue of notices, served by the workers that have webhooks.

    A receiver that hangs takes slots, and no tool's and no effect's.
    """
    return f"{task_queue}-notify"


def batch_task_queue(task_queue: str) -> str:
    """Return the queue of lanes, which stay for minutes and hold many requests each."""
    return f"{task_queue}-batch"
