"""The key file of a data directory: made once, for its owner, and read by all who come later."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runlane import key_file
from runlane.settings import EncryptionKey, SettingsError


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """The second time, the key that is there is returned."""
    [key] = key_file.make(tmp_path)

    assert 32 == len(key.key)
    assert (key,) == key_file.make(tmp_path) == key_file.read(tmp_path)
    assert 0o600 == (tmp_path / key_file.NAME).stat().st_mode & 0o777
    assert [tmp_path / key_file.NAME] == list(tmp_path.iterdir())


def test_makers_that_race_agree(tmp_path: Path) -> None:
    """All of them come back with the one key that stands."""
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: key_file.make(tmp_path), range(32)))

    assert 1 == len(made)


def test_two_directories_have_keys_of_two_names(tmp_path: Path) -> None:
    """A key that is lost can be told from one with other bytes."""
    names = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        names |= {key.id for key in key_file.make(tmp_path / name)}

    assert 2 == len(names)


def test_there_need_be_none(tmp_path: Path) -> None:
    """A directory without the file, or none at all, has no keys."""
    assert () == key_file.read(tmp_path)
    assert () == key_file.read(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"id:c2hvcnQ="])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    """A damaged file is an error that names it, without its content; it is not overwritten."""
    path = tmp_path / key_file.NAME
    path.write_bytes(content)

    for use in (key_file.read, key_file.make):
        with pytest.raises(SettingsError) as caught:
            use(tmp_path)
        assert str(path) in str(caught.value)
        assert "Put a copy of it back" in str(caught.value)
        # A new key would read none of the runs that stand there.
        assert "Make one" not in str(caught.value)
        assert "c2hvcnQ" not in str(caught.value)
    assert content == path.read_bytes()


def test_keys_of_the_variable_come_first() -> None:
    """They seal, and one of the same name is the variable's."""
    ours, theirs = EncryptionKey("a", bytes(32)), EncryptionKey("a", bytes(range(32)))
    other = EncryptionKey("b", bytes(32))

    assert (ours, other) == key_file.beside([ours], [theirs, other])
