import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import RemoveSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from runlane import search_attributes
from runlane.embedded import EmbeddedTemporal, EmbeddedTemporalError, PortTaken
from runlane.errors import NamespaceMissing, TemporalUnreachable
from runlane.settings import Settings, SettingsError
from runlane.temporal import connect, data_converter, payload_directory


def _environ(server: EmbeddedTemporal) -> dict[str, str]:
    return {"TEMPORAL_ADDRESS": server.address}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has a pid too, but it is nobody's server any more.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


async def _wait_until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                if not _alive(pid):
                    return
            except FileNotFoundError:
                return
            await asyncio.sleep(0.05)


async def test_the_namespace_is_ready_when_the_server_is_entered(
    temporal_server: EmbeddedTemporal, client: Client
) -> None:
    """At once there are 30 days of retention, the search attributes and the data directory."""
    answer = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace="default")
    )

    assert timedelta(days=30) == answer.config.workflow_execution_retention_ttl.ToTimedelta()
    assert str(temporal_server.data_dir) == answer.namespace_info.data["runlane_data_dir"]
    assert await search_attributes.registered(client)


async def test_every_registered_attribute_can_be_set(client: Client) -> None:
    """A workflow may start with any of the attributes under the type we say it has."""
    handle = await client.start_workflow(
        "Nobody",
        id="attributes",
        task_queue="nobody",
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(search_attributes.STATUS, "queued"),
                SearchAttributePair(search_attributes.THREAD, "thread_1"),
                SearchAttributePair(search_attributes.ASSISTANT, "asst_1"),
                SearchAttributePair(search_attributes.CREATED, datetime.now(UTC)),
                SearchAttributePair(search_attributes.BLOCKED, "quota"),
            ]
        ),
    )
    await handle.terminate()


async def test_registering_again_is_harmless(client: Client) -> None:
    """Any number of workers may register the attributes."""
    await search_attributes.register(client)

    assert await search_attributes.registered(client)


def test_the_commands_register_what_the_probe_asks_for() -> None:
    """The commands we print name every attribute with its type and the namespace."""
    for command in search_attributes.commands("night"):
        assert "night" in command
        for name, kind in search_attributes.TYPES.items():
            assert name in command
            assert kind in command


async def test_an_unregistered_attribute_is_noticed(tmp_path: Path) -> None:
    """A plain server is recognised as unprepared, and registering prepares it."""
    async with EmbeddedTemporal(tmp_path) as server:
        client = await connect(Settings(data_dir=tmp_path), environ=_environ(server))
        await _remove_attributes(client)
        assert not await search_attributes.registered(client)

        await search_attributes.register(client)
        async with asyncio.timeout(10):
            while not await search_attributes.registered(client):
                await asyncio.sleep(0.1)


async def test_a_client_elsewhere_finds_the_payloads_of_the_server(
    temporal_server: EmbeddedTemporal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing set, a process in any directory uses the data directory of the server."""
    monkeypatch.chdir(tmp_path)
    client = await connect(Settings(), environ=_environ(temporal_server))
    big = "x" * 100_000

    [payload] = await client.data_converter.encode([big])

    assert payload.ByteSize() < 2_000
    server_side = data_converter(temporal_server.data_dir)
    assert [big] == await server_side.decode([payload], [str])
    assert any(payload_directory(temporal_server.data_dir).rglob("[0-9a-f]*"))


async def test_what_is_set_wins_over_the_namespace(
    temporal_server: EmbeddedTemporal, tmp_path: Path
) -> None:
    """A data directory of one's own is used although the namespace names another."""
    client = await connect(Settings(data_dir=tmp_path), environ=_environ(temporal_server))

    await client.data_converter.encode(["y" * 100_000])

    assert 1 == len([p for p in payload_directory(tmp_path).rglob("*") if p.is_file()])


async def test_a_restart_keeps_the_state(tmp_path: Path) -> None:
    """A run started before a restart on the same data directory is there after it."""
    async with EmbeddedTemporal(tmp_path) as server:
        client = await connect(Settings(), environ=_environ(server))
        await client.start_workflow("Nobody", id="survivor", task_queue="nobody")
        first = server.pid
    assert not Path(f"/proc/{first}").exists()

    async with EmbeddedTemporal(tmp_path) as server:
        client = await connect(Settings(), environ=_environ(server))
        described = await client.get_workflow_handle("survivor").describe()

        assert "survivor" == described.id
        assert await search_attributes.registered(client)


async def test_two_servers_on_one_data_directory_are_refused(
    temporal_server: EmbeddedTemporal,
) -> None:
    """A second server would corrupt the first one's file, so it does not start."""
    with pytest.raises(EmbeddedTemporalError, match="already running on"):
        await EmbeddedTemporal(temporal_server.data_dir).start()


@pytest.mark.parametrize("which", ["port", "ui_port"])
async def test_a_taken_port_is_named(tmp_path: Path, which: str) -> None:
    """The error names the port and the option that chooses another."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        server = EmbeddedTemporal(tmp_path, **{which: port})

        option = {"port": "--temporal-port", "ui_port": "--ui-port"}[which]
        with pytest.raises(PortTaken, match=rf"Port {port} .* {option}"):
            await server.start()


async def test_a_failing_server_is_reported_with_its_log(tmp_path: Path) -> None:
    """A server that ends at once fails the start with its own words, and frees the directory."""
    (tmp_path / "temporal.db").write_text("this is no database" * 1000)
    with pytest.raises(EmbeddedTemporalError, match="not a database"):
        await EmbeddedTemporal(tmp_path).start()

    (tmp_path / "temporal.db").unlink()
    async with EmbeddedTemporal(tmp_path):
        pass


async def test_an_unusable_data_directory_is_named(tmp_path: Path) -> None:
    """A data directory that can't be made is one line with its path and the variable."""
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddedTemporalError, match=r"file/data can't be .*RUNLANE_DATA_DIR"):
        await EmbeddedTemporal(tmp_path / "file" / "data").start()


async def test_the_end_of_the_server_is_noticed(tmp_path: Path) -> None:
    """Who waits for the server learns that it was killed."""
    async with EmbeddedTemporal(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)

        assert -signal.SIGKILL == await asyncio.wait_for(server.wait(), 10)


_PARENT = """
import asyncio, sys
from pathlib import Path
from runlane.embedded import EmbeddedTemporal

async def main():
    async with EmbeddedTemporal(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
async def test_a_killed_parent_takes_the_server_along(tmp_path: Path) -> None:
    """SIGKILL leaves no orphan: the server is gone, and the next start on its state works."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout as lines:
        pid = int(await asyncio.to_thread(lines.readline))
    assert _alive(pid)

    parent.kill()
    parent.wait()

    await _wait_until_gone(pid)
    async with EmbeddedTemporal(tmp_path) as server:
        assert server.pid != pid


async def test_an_unreachable_server_is_reported_soon() -> None:
    """Where nothing listens, the error names the address and what to do, soon."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        began = time.monotonic()

        with pytest.raises(TemporalUnreachable, match=f"{address}.*refused.*runlane up"):
            await connect(Settings(), environ={"TEMPORAL_ADDRESS": address})

    assert time.monotonic() - began < 10


async def test_a_silent_server_is_reported_soon() -> None:
    """A port that accepts and says nothing does not hold a command for longer than the limit."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(TemporalUnreachable, match=r"no answer in 0\.5 s"):
            await connect(
                Settings(),
                environ={"TEMPORAL_ADDRESS": address},
                timeout=timedelta(seconds=0.5),
            )


async def test_a_namespace_that_is_not_there_is_named(temporal_server: EmbeddedTemporal) -> None:
    """A typing error in the namespace is reported as that."""
    with pytest.raises(NamespaceMissing, match="no namespace 'nowhere'"):
        await connect(
            Settings(), environ={**_environ(temporal_server), "TEMPORAL_NAMESPACE": "nowhere"}
        )


async def test_a_bad_profile_is_a_settings_error() -> None:
    """What Temporal's own configuration gets wrong is one line that names the variable."""
    with pytest.raises(SettingsError, match=r"^TEMPORAL_PROFILE: "):
        await connect(Settings(), environ={"TEMPORAL_PROFILE": "nobody"})


async def _remove_attributes(client: Client) -> None:
    request = RemoveSearchAttributesRequest(
        namespace="default", search_attributes=list(search_attributes.TYPES)
    )
    await client.operator_service.remove_search_attributes(request)
    async with asyncio.timeout(10):
        while await search_attributes.registered(client):
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_asking_a_dead_server_is_an_error_not_a_no(tmp_path: Path) -> None:
    """That the server can't be asked is never taken for attributes that are missing."""
    async with EmbeddedTemporal(tmp_path) as server:
        client = await connect(Settings(data_dir=tmp_path), environ=_environ(server))

    with pytest.raises(RPCError):
        await search_attributes.registered(client)
