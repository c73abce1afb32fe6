import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PACKAGES = ("activities", "ledger", "runlane", "runsapi", "workflows")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the builder that is installed."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps",
            "--disable-pip-version-check", "--wheel-dir", str(target), str(ROOT),
        ],
        check=True,
    )  # fmt: skip
    [built] = target.glob("*.whl")
    return built


def test_the_wheel_holds_our_packages_whole_and_nothing_else(wheel: Path) -> None:
    """Every file of our packages is shipped, with `worker.py`; tests and tools are not."""
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"runlane-{VERSION}.dist-info"
    expected |= {"worker.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"}
    expected |= {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"}

    with zipfile.ZipFile(wheel) as archive:
        assert expected == set(archive.namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(wheel: Path, package: str) -> None:
    """Type checkers of those who install us see our types."""
    with zipfile.ZipFile(wheel) as archive:
        assert f"{package}/py.typed" in archive.namelist()


def test_the_installed_wheel_runs_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    """In a clean environment, outside the repository, both commands are there and answer."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(environment), "platbase": str(environment)})
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"),
            "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index",
            str(wheel),
        ],
        check=True,
    )  # fmt: skip
    # Dependencies are taken from here rather than downloaded again. A path added this way reads
    # no .pth files of its own, so our editable install stays out of sight.
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=elsewhere, check=False, capture_output=True, text=True, timeout=60
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    script = "import runlane, worker; print(runlane.__file__, worker.__file__)"
    for file in run(str(environment / "bin" / "python"), "-c", script).split():
        assert Path(file).is_relative_to(environment)
    assert VERSION in run(str(environment / "bin" / "runlane"), "--version")
    assert (environment / "bin" / "runlane-worker").exists()
