import base64
import re
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path

import pytest

from runlane.settings import (
    Address,
    EncryptionKey,
    LogFormat,
    S3Location,
    Settings,
    SettingsError,
    UpstreamAuth,
)

KEY = base64.b64encode(b"k" * 32).decode()
URL_SAFE_KEY = base64.urlsafe_b64encode(b"\xff" * 32).decode()
WEBHOOK_SECRET = f"whsec_{KEY}"
SECRET_PAIR = f"secret:{KEY}"


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing set is a valid configuration, and it has the documented defaults."""
    settings = Settings.from_env({})

    assert Settings() == settings
    assert "runlane" == settings.task_queue
    assert "runlane-poll" == settings.poll_task_queue
    assert timedelta(seconds=60) == settings.upstream_timeout
    assert UpstreamAuth.BEARER is settings.upstream_auth
    assert settings.read_upstream_api_key() is None


def test_every_variable_reaches_its_field() -> None:
    """Each variable of the docstring sets the field it describes."""
    settings = Settings.from_env(
        {
            "RUNLANE_UPSTREAM_URL": "https://example.test/v1/",
            "RUNLANE_UPSTREAM_API_KEY": "k-1",
            "RUNLANE_UPSTREAM_API_VERSION": "2025-05-01",
            "RUNLANE_UPSTREAM_AUTH": "api-key",
            "RUNLANE_UPSTREAM_TIMEOUT": "1m",
            "RUNLANE_TASK_QUEUE": "night",
            "RUNLANE_DATA_DIR": "/srv/runlane",
            "RUNLANE_PAYLOAD_STORE": "s3://bucket/a/b/",
            "RUNLANE_DECISION_KEY": "/run/decision.key",
            "RUNLANE_DECISION_PUBLIC_KEYS": "/run/decision.pub",
            "RUNLANE_DATABASE_URL": "postgresql://me:secret@db/ledger",
            "RUNLANE_UPSTREAM_MAX_CONCURRENCY": "40",
            "RUNLANE_UPSTREAM_RPS": "0.5",
            "RUNLANE_ENCRYPTION_KEYS": f"new:{KEY}, old-1:{URL_SAFE_KEY}",
            "RUNLANE_CODEC_TOKEN": "t-1",
            "RUNLANE_CODEC_ORIGINS": "https://temporal.example.com/,http://127.0.0.1:8233",
            "RUNLANE_METRICS_ADDRESS": "127.0.0.1:9464",
            "RUNLANE_LOG_FORMAT": "json",
            "RUNLANE_PERSON": "Ann Lee",
            "RUNLANE_GROUPS": "desk, board ,desk,",
            "RUNLANE_TOOLS": "shop.tools, billing ,shop.tools,",
            "RUNLANE_CONFIG_FILE": "/etc/runlane.toml",
            "RUNLANE_WEBHOOK_URL": "https://a.test/hook?key=1, http://b.test",
            "RUNLANE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "RUNLANE_DEPLOYMENT_NAME": "runlane",
            "RUNLANE_BUILD_ID": "2026-11-22",
            "RUNLANE_API_URL": "http://127.0.0.1:8400/",
            "RUNLANE_TOKEN": "rl_1",
            "RUNLANE_TRUSTED_USER_HEADER": "X-Forwarded-User",
        }
    )

    expected = Settings(
        upstream_url="https://example.test/v1",
        upstream_api_key="k-1",
        upstream_api_version="2025-05-01",
        upstream_auth=UpstreamAuth.API_KEY,
        upstream_timeout=timedelta(minutes=1),
        task_queue="night",
        data_dir=Path("/srv/runlane"),
        payload_store=S3Location(bucket="bucket", prefix="a/b"),
        database_url="postgresql://me:secret@db/ledger",
        decision_key=Path("/run/decision.key"),
        decision_public_keys=Path("/run/decision.pub"),
        upstream_max_concurrency=40,
        upstream_rps=0.5,
        encryption_keys=(
            EncryptionKey("new", b"k" * 32),
            EncryptionKey("old-1", b"\xff" * 32),
        ),
        codec_token="t-1",
        codec_origins=("https://temporal.example.com", "http://127.0.0.1:8233"),
        metrics_address=Address("127.0.0.1", 9464),
        log_format=LogFormat.JSON,
        person="Ann Lee",
        groups=("desk", "board"),
        tools=("shop.tools", "billing"),
        config_file=Path("/etc/runlane.toml"),
        webhook_urls=("https://a.test/hook?key=1", "http://b.test"),
        webhook_secrets=(WEBHOOK_SECRET,),
        deployment_name="runlane",
        build_id="2026-11-22",
        api_url="http://127.0.0.1:8400/v1",
        token="rl_1",
        trusted_user_header="x-forwarded-user",
    )
    assert expected == settings
    assert "night-poll" == settings.poll_task_queue
    assert "s3://bucket/a/b" == str(settings.payload_store)


def test_every_variable_is_listed_in_the_docstring() -> None:
    """The class docstring is the full list: no variable is read that it does not name."""
    source = Path(Settings.from_env.__code__.co_filename).read_text(encoding="utf-8")

    assert re.findall(r"RUNLANE_[A-Z_0-9]+", source)
    assert set(re.findall(r"RUNLANE_[A-Z_0-9]+", source)) == set(
        re.findall(r"`(RUNLANE_[A-Z_0-9]+)`", Settings.__doc__ or "")
    )


def test_an_empty_variable_counts_as_unset() -> None:
    """A compose file that passes `${NAME:-}` through does not break the defaults."""
    assert Settings() == Settings.from_env(
        {"RUNLANE_UPSTREAM_URL": "", "RUNLANE_TASK_QUEUE": "  ", "RUNLANE_UPSTREAM_TIMEOUT": ""}
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RUNLANE_UPSTREAM_URL", "example.test"),
        ("RUNLANE_UPSTREAM_URL", "ftp://example.test"),
        ("RUNLANE_UPSTREAM_URL", "http://example.test:port"),
        ("RUNLANE_UPSTREAM_URL", "https://me:secret@example.test"),
        ("RUNLANE_UPSTREAM_URL", "https://example.test/v1?api-version=1"),
        ("RUNLANE_UPSTREAM_API_KEY", "sec\nret"),
        ("RUNLANE_UPSTREAM_AUTH", "basic"),
        ("RUNLANE_UPSTREAM_TIMEOUT", "soon"),
        ("RUNLANE_UPSTREAM_TIMEOUT", "0"),
        ("RUNLANE_UPSTREAM_TIMEOUT", "11m"),
        ("RUNLANE_PAYLOAD_STORE", "gs://bucket"),
        ("RUNLANE_PAYLOAD_STORE", "s3:///prefix"),
        ("RUNLANE_DATABASE_URL", "mysql://me:secret@db/ledger"),
        ("RUNLANE_DATABASE_URL", "postgresql://me:secret@db"),
        ("RUNLANE_DATABASE_URL", "postgresql://me:secret@db:x/ledger"),
        ("RUNLANE_UPSTREAM_MAX_CONCURRENCY", "0"),
        ("RUNLANE_UPSTREAM_MAX_CONCURRENCY", "1.5"),
        ("RUNLANE_UPSTREAM_MAX_CONCURRENCY", "9" * 5000),
        ("RUNLANE_UPSTREAM_RPS", "0"),
        ("RUNLANE_UPSTREAM_RPS", "nan"),
        ("RUNLANE_UPSTREAM_RPS", "1e999"),
        ("RUNLANE_ENCRYPTION_KEYS", KEY),
        ("RUNLANE_ENCRYPTION_KEYS", "a:secret"),
        ("RUNLANE_ENCRYPTION_KEYS", f"{SECRET_PAIR},{SECRET_PAIR}"),
        ("RUNLANE_CODEC_TOKEN", "sec\nret"),
        ("RUNLANE_CODEC_ORIGINS", "*"),
        ("RUNLANE_CODEC_ORIGINS", "https://a.test/page"),
        ("RUNLANE_METRICS_ADDRESS", "9464"),
        ("RUNLANE_METRICS_ADDRESS", "host:http"),
        ("RUNLANE_METRICS_ADDRESS", "::1:9464"),
        ("RUNLANE_METRICS_ADDRESS", "host:65536"),
        ("RUNLANE_LOG_FORMAT", "xml"),
        ("RUNLANE_TOOLS", "shop/tools.py"),
        ("RUNLANE_WEBHOOK_URL", "a.test/secret"),
        ("RUNLANE_WEBHOOK_URL", "https://a.test:port/secret"),
        ("RUNLANE_WEBHOOK_URL", "https://me:secret@a.test"),
        ("RUNLANE_WEBHOOK_URL", "https://a.test/sec\nret"),
        ("RUNLANE_WEBHOOK_URL", ",".join(f"https://a.test/secret/{n}" for n in range(11))),
        ("RUNLANE_WEBHOOK_SECRET", KEY),
        ("RUNLANE_WEBHOOK_SECRET", f"whsec_{KEY[:-6]}"),
        ("RUNLANE_WEBHOOK_SECRET", "whsec_c2VjcmV0"),
        ("RUNLANE_TOOLS", "shop..tools"),
        ("RUNLANE_PERSON", "x" * 256),
        ("RUNLANE_PERSON", "ann\x1b[2J"),
        ("RUNLANE_GROUPS", "desk," + "x" * 256),
        ("RUNLANE_GROUPS", ",".join(f"g{n}" for n in range(101))),
        ("RUNLANE_API_URL", "http://me:secret@127.0.0.1:8400"),
        ("RUNLANE_TOKEN", "sec\nret"),
        ("RUNLANE_TRUSTED_USER_HEADER", "x forwarded user"),
        ("RUNLANE_TRUSTED_USER_HEADER", "Authorization"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, value: str) -> None:
    """An unusable value fails with the variable's name, and a password in it is not repeated."""
    with pytest.raises(SettingsError, match=f"^{variable}: ") as caught:
        Settings.from_env({variable: value})

    assert variable == caught.value.variable
    assert "secret" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        (
            {"RUNLANE_UPSTREAM_API_KEY": "k", "RUNLANE_UPSTREAM_API_KEY_FILE": "/k"},
            "RUNLANE_UPSTREAM_API_KEY_FILE",
        ),
        (
            {"RUNLANE_UPSTREAM_API_KEY": "k", "RUNLANE_UPSTREAM_AUTH": "azure"},
            "RUNLANE_UPSTREAM_AUTH",
        ),
        (
            {
                "RUNLANE_DATABASE_URL": "postgresql://db/ledger",
                "RUNLANE_DATABASE_URL_FILE": "/url",
            },
            "RUNLANE_DATABASE_URL_FILE",
        ),
        (
            {"RUNLANE_ENCRYPTION_KEYS": f"a:{KEY}", "RUNLANE_ENCRYPTION_KEYS_FILE": "/k"},
            "RUNLANE_ENCRYPTION_KEYS_FILE",
        ),
        (
            {"RUNLANE_WEBHOOK_SECRET": WEBHOOK_SECRET, "RUNLANE_WEBHOOK_SECRET_FILE": "/k"},
            "RUNLANE_WEBHOOK_SECRET_FILE",
        ),
        ({"RUNLANE_TOKEN": "rl_1", "RUNLANE_TOKEN_FILE": "/k"}, "RUNLANE_TOKEN_FILE"),
        ({"RUNLANE_DEPLOYMENT_NAME": "runlane"}, "RUNLANE_BUILD_ID"),
        ({"RUNLANE_BUILD_ID": "1"}, "RUNLANE_DEPLOYMENT_NAME"),
    ],
)
def test_values_that_exclude_each_other_are_refused(environ: dict[str, str], named: str) -> None:
    """Where two settings contradict, neither wins silently."""
    with pytest.raises(SettingsError, match=f"^{named}: "):
        Settings.from_env(environ)


def test_the_key_is_never_printed() -> None:
    """A settings object in a log or a traceback does not give the key away."""
    settings = Settings.from_env(
        {
            "RUNLANE_UPSTREAM_API_KEY": "hush-hush",
            "RUNLANE_ENCRYPTION_KEYS": f"a:{KEY}",
            "RUNLANE_CODEC_TOKEN": "hush-hush-too",
            "RUNLANE_TOKEN": "rl_hush-hush",
            "RUNLANE_DATABASE_URL": "postgresql://me:hush-hush@db/ledger",
            "RUNLANE_WEBHOOK_URL": "https://a.test/hush-hush",
            "RUNLANE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
    )

    assert "hush-hush" == settings.read_upstream_api_key()
    assert "rl_hush-hush" == settings.read_token()
    assert "hush-hush" not in repr(settings)
    assert "kkkk" not in repr(settings)
    assert "kkkk" not in repr(settings.encryption_keys)
    assert WEBHOOK_SECRET not in repr(settings)


def test_the_key_file_is_read_when_asked(tmp_path: Path) -> None:
    """A secret mounted as a file is used without its newline; a rotated one is seen at once."""
    file = tmp_path / "key"
    settings = Settings.from_env({"RUNLANE_UPSTREAM_API_KEY_FILE": str(file)})
    with pytest.raises(SettingsError, match="RUNLANE_UPSTREAM_API_KEY_FILE: can't read"):
        settings.read_upstream_api_key()

    file.write_text("one\n")
    assert "one" == settings.read_upstream_api_key()
    file.write_text("two\n")
    assert "two" == settings.read_upstream_api_key()
    file.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        settings.read_upstream_api_key()


def test_the_file_of_encryption_keys_is_read_when_asked(tmp_path: Path) -> None:
    """A mounted secret may have a line for each key; what is wrong in it names its variable."""
    file = tmp_path / "keys"
    settings = Settings.from_env({"RUNLANE_ENCRYPTION_KEYS_FILE": str(file)})
    with pytest.raises(SettingsError, match="RUNLANE_ENCRYPTION_KEYS_FILE: can't read"):
        settings.read_encryption_keys()

    file.write_text(f"b:{URL_SAFE_KEY}\na:{KEY}\n")
    assert ["b", "a"] == [key.id for key in settings.read_encryption_keys()]
    file.write_text(f"b:{KEY[:-6]}")
    with pytest.raises(SettingsError, match=r"^RUNLANE_ENCRYPTION_KEYS_FILE: the key of pair 1 "):
        settings.read_encryption_keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":9464", Address("0.0.0.0", 9464)),
        ("[::1]:0", Address("::1", 0)),
        ("worker-1:9464", Address("worker-1", 9464)),
    ],
)
def test_forms_of_an_address(text: str, expected: Address) -> None:
    """Every interface, IPv6, and a name."""
    assert expected == Settings.from_env({"RUNLANE_METRICS_ADDRESS": text}).metrics_address


def test_settings_are_frozen() -> None:
    """Settings are a value: nobody changes them for somebody else."""
    with pytest.raises(FrozenInstanceError):
        Settings().task_queue = "other"  # type: ignore[misc] # the point of the test
