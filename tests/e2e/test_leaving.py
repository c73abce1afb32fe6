"""A process that leaves while Temporal still has something to say to it."""

import asyncio
import sys
from pathlib import Path

from runlane.embedded import EmbeddedTemporal

GIVES_UP = """
import asyncio, sys
from temporalio.client import Client
from runlane.leaving import leave

async def main():
    client = await Client.connect(sys.argv[1])
    calls = [asyncio.create_task(client.count_workflows()) for _ in range(300)]
    await asyncio.sleep(0.02)
    print(len(calls), "calls given up")

asyncio.run(main())
leave(3)
"""


async def test_calls_under_way_keep_no_process(temporal_server: EmbeddedTemporal) -> None:
    """It ends at once, with its own exit code and all it said; not by a signal, and not never."""
    for _ in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            GIVES_UP,
            temporal_server.address,
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), 20)
        finally:
            if process.returncode is None:
                process.kill()
        assert b"300 calls given up\n" == said
        assert 3 == process.returncode
