"""Settings: flags before environment before file before defaults, and every mistake is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsxsync.config import MIB, Settings, default_state_dir, load
from fsxsync.errors import BadInput

STATE = {"state_dir": "/state"}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "fsxsync.toml"
    file.write_text(text)
    return file


def test_defaults() -> None:
    assert load(None, {}, STATE) == Settings(state_dir=Path("/state"))


def test_flags_before_environment_before_file(tmp_path: Path) -> None:
    file = written(tmp_path, "look_workers = 2\ntransfer_threads = 2\nassociation_requests = 2\n")
    env = {"FSXSYNC_LOOK_WORKERS": "3", "FSXSYNC_TRANSFER_THREADS": "3"}

    settings = load(file, env, {**STATE, "look_workers": 4, "association_requests": None})

    assert (settings.look_workers, settings.transfer_threads, settings.association_requests) == (4, 3, 2)


def test_each_source_gives_each_type(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'chunk_size = "4 MiB"\npart_size = 16777216\nexport_delay_s = 2\n'
        'allow_other = true\nmetrics_listen = "[::1]:9100"\n',
    )
    env = {
        "FSXSYNC_EVENT_LOG_MAX_BYTES": "1M",
        "FSXSYNC_POLL_DEFAULT_S": "0.5",
        "FSXSYNC_STATE_DIR": "/elsewhere",
    }

    settings = load(file, env, {"log_level": "debug", "attr_timeout_s": "30"})

    assert settings == Settings(
        state_dir=Path("/elsewhere"),
        chunk_size=4 * MIB,
        part_size=16 * MIB,
        export_delay_s=2.0,
        allow_other=True,
        metrics_listen="[::1]:9100",
        event_log_max_bytes=MIB,
        poll_default_s=0.5,
        log_level="DEBUG",
        attr_timeout_s=30.0,
    )


@pytest.mark.parametrize("word", ["0", "false", "No", "off"])
def test_a_switch_can_be_turned_off(word: str) -> None:
    assert load(None, {"FSXSYNC_ALLOW_OTHER": word}, STATE).allow_other is False


def test_variables_that_an_orchestrator_makes_up_do_no_harm() -> None:
    env = {"FSXSYNC_PORT": "tcp://10.0.0.1:80", "FSXSYNC_SERVICE_HOST": "10.0.0.1", "FSXSYNC_LOG_LEVEL": ""}

    assert load(None, env, STATE) == Settings(state_dir=Path("/state"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "chunk_sice = 1\n",
            r"'chunk_sice' in .*fsxsync\.toml: there is no such setting; known are .*chunk_size",
        ),
        ("chunk_size = 4097\n", r"chunk_size in .*fsxsync\.toml: 4097 is not from"),
        ("chunk_size = 69633\n", "in steps of 4096"),
        ('chunk_size = "8 apples"\n', "'8 apples' is no size"),
        ("chunk_size = true\n", "True is no size"),
        ("chunk_size = -8388608\n", "is no size"),
        ("part_size = 1048576\n", "is not from 5242880 to"),
        ("look_workers = 0\n", "0 is no number from 1 to 256"),
        ("look_workers = 1.5\n", "1.5 is no whole number"),
        ("look_workers = true\n", "True is no number"),
        ("look_workers = [1]\n", r"\[1\] is no number"),
        ("export_delay_s = nan\n", "nan is no number"),
        ("export_delay_s = 40\n", r"export_delay_s in .*: export_cap_s is 30, less than export_delay_s"),
        ('log_level = "LOUD"\n', "'LOUD' is none of DEBUG, INFO, WARNING, ERROR"),
        ('allow_other = "maybe"\n', "'maybe' is neither true nor false"),
        ('metrics_listen = "9100"\n', "'9100' is no HOST:PORT"),
        ('metrics_listen = "localhost:70000"\n', "is no HOST:PORT"),
        ("metrics_listen = 9100\n", "9100 is no HOST:PORT"),
        ('state_dir = ""\n', "'' is no directory's name"),
        ("[table\n", r"fsxsync\.toml is no TOML"),
        ("[daemon]\nlook_workers = 1\n", "'daemon' in .*no such setting"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load(written(tmp_path, text), {}, {})


def test_a_mistake_elsewhere_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="FSXSYNC_LOOK_WORKERS in the environment: 'many' is no number"):
        load(None, {"FSXSYNC_LOOK_WORKERS": "many"}, STATE)
    with pytest.raises(BadInput, match="option --api-listen: 'x' is no HOST:PORT"):
        load(None, {}, {**STATE, "api_listen": "x"})
    with pytest.raises(BadInput, match="'colour' among the options"):
        load(None, {}, {**STATE, "colour": "red"})
    with pytest.raises(BadInput, match=r"missing\.toml can't be read: No such file"):
        load(tmp_path / "missing.toml", {}, STATE)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"a = '\xff'")
    with pytest.raises(BadInput, match=r"binary\.toml is no TOML"):
        load(binary, {}, STATE)


@pytest.mark.parametrize(
    ("env", "uid", "wanted"),
    [
        ({}, 0, "/var/lib/fsxsync/default"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/home/a"}, 0, "/var/lib/fsxsync/default"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/home/a"}, 1000, "/x/fsxsync/default"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/a"}, 1000, "/home/a/.local/state/fsxsync/default"),
        ({"HOME": "/home/a"}, 1000, "/home/a/.local/state/fsxsync/default"),
        ({"FSXSYNC_STATE_DIR": "/s"}, 0, "/s"),
    ],
)
def test_the_default_state_directory(env: dict[str, str], uid: int, wanted: str) -> None:
    assert default_state_dir(env, uid) == Path(wanted)


def test_a_user_without_a_home_is_asked_for_a_state_directory() -> None:
    with pytest.raises(BadInput, match="name a --state-dir"):
        default_state_dir({}, 2**31 - 7)
    assert default_state_dir({"FSXSYNC_STATE_DIR": "/s"}, os.geteuid()) == Path("/s")
