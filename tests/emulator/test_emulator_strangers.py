"""Who may call the emulator from a browser, who may read its file, and who is warned of it."""

import stat
import sys

import httpx
import pytest

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator

HERE = "http://127.0.0.1:8792"


async def reset(emulator, *, base_url=HERE, **headers):
    """Send the request that any page can send without being asked, and return the status."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-type": "text/plain"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(emulator), base_url=base_url) as client:
        return (await client.post("/emulator/reset", headers=headers, content="{}")).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:3000", "sec_fetch_site": "cross-site"}, 200),
        ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_pages_of_other_sites_are_not_answered(emulator, headers, status):
    """A program and a page of this machine are; a page from elsewhere cannot reset the emulator."""
    assert await reset(emulator, **headers) == status


async def test_a_name_that_a_stranger_pointed_here_is_not_answered(emulator):
    """The page is of the same origin then, but not under a name of this machine; a program may use any name."""
    evil = "http://evil.example:8792"
    assert await reset(emulator, base_url=evil, sec_fetch_site="same-origin") == 403
    assert await reset(emulator, base_url=evil) == 200


async def test_a_page_under_a_strangers_name_reads_nothing(emulator):
    """A browser that reads from a name without TLS sends neither `Origin` nor `Sec-Fetch-Site`."""
    headers = {"accept-language": "en", "authorization": f"Bearer {EMULATOR_KEY}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(emulator), base_url="http://evil.example:8792", headers=headers
    ) as client:
        assert (await client.get("/v1/organization/me")).status_code == 403


async def test_other_hosts_can_be_allowed(emulator):
    """`autumn emulator serve --allow-remote` answers under any name."""
    emulator.hosts = None
    assert await reset(emulator, base_url="http://devbox:8792", sec_fetch_site="same-origin") == 200


def test_only_the_owner_reads_the_file(tmp_path):
    """Keys and customers are in it."""
    path = tmp_path / "new" / "emulator.db"
    Emulator(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("watched", [True, False])
def test_a_service_that_nobody_watches_warns_of_the_emulator(tmp_path, monkeypatch, caplog, watched):
    """A server's log says that no customer pays; a terminal, where a person chose so, is spared."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched)
    settings = AutumnSettings(emulator=True, emulator_path=tmp_path / "emulator.db")
    autumn = Autumn(settings=settings, prices={"gpt-4o": 3})
    assert autumn.emulator is autumn.emulator
    assert [record.levelname for record in caplog.records if "AUTUMN_EMULATOR is on" in record.message] == (
        [] if watched else ["WARNING"]
    )
