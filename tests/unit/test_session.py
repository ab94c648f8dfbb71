"""Sessions of boto3: what is each one's own, and what they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsxsync.model.association import Access
from fsxsync.repository.session import new_session, s3_client

ACCESS = Access(endpoint_url="http://127.0.0.1:9", region="us-east-1")


def test_clients_of_several_sessions_share_botocores_descriptions() -> None:
    one, other = s3_client(ACCESS), s3_client(ACCESS)

    assert one.meta.service_model._service_description is other.meta.service_model._service_description  # type: ignore[attr-defined]


def test_what_they_share_does_not_grow_with_them() -> None:
    loader = new_session(None)._session.get_component("data_loader")
    before = list(loader.search_paths)

    new_session(None)

    assert loader.search_paths == before


def test_credentials_and_settings_are_each_sessions_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    for name in ("one", "other"):
        with file.open("a") as stream:
            stream.write(f"[{name}]\naws_access_key_id={name}\naws_secret_access_key=s\nregion={name}-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)

    for name in ("one", "other"):
        session = new_session(name)
        credentials = session.get_credentials()
        assert credentials is not None
        assert (credentials.access_key, session.region_name) == (name, f"{name}-1")


def test_descriptions_of_ones_own_are_looked_for_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine/2020-01-01").mkdir(parents=True)
    (tmp_path / "mine/2020-01-01/service-2.json").write_text("{}")
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))

    assert "mine" in new_session(None).get_available_services()
    monkeypatch.delenv("AWS_DATA_PATH")
    assert "mine" not in new_session(None).get_available_services()
