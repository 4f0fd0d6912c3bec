"""Keys, and how the command line gets some."""

import base64
import hashlib
import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from emulator.conftest import EmulatorClient
from fastapi_autumn.emulator import EMULATOR_KEY

VERIFIER = "a-verifier-that-only-the-program-knows-0123456789"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
REQUEST = {
    "response_type": "code",
    "client_id": "cli",
    "redirect_uri": "http://localhost:31448/",
    "state": "xyz",
    "code_challenge_method": "S256",
    "code_challenge": CHALLENGE,
}


async def test_keys_can_be_rotated(emulator, autumn):
    """A second key works beside the first one, and goes on when the first is revoked."""
    emulator.add_key("am_sk_live_second")
    async with EmulatorClient(emulator, "am_sk_live_second") as second:
        assert (await second.ok("customers.get", customer_id="ann"))["env"] == "live"
        emulator.revoke_key(EMULATOR_KEY)
        refused = await autumn.call("customers.get", customer_id="ann")
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_secret_key")
        assert await second.remaining() == 50


def test_only_keys_of_autumn_s_form_can_be_added(emulator):
    """A typo in a test is found at once, not as a 401 later."""
    with pytest.raises(ValueError, match="am_sk_test"):
        emulator.add_key("sk_test_oops")


async def test_a_publishable_key_reaches_its_few_routes(emulator, autumn):
    """A key that anybody can read in a browser may look and not touch."""
    async with EmulatorClient(emulator, "am_pk_test_emulator") as browser:
        assert (await browser.get("/v1/products")).status_code == 200
        assert (await browser.get("/v1/customers/ann")).json()["id"] == "ann"
        body = {"customer_id": "ann", "feature_id": "usage"}
        assert (await browser.post("/v1/check", json=body)).json()["allowed"] is True
        taking = await browser.post("/v1/check", json={**body, "send_event": True})
        assert taking.status_code == 400
        refused = await browser.post("/v1/balances.track", json=body)
        assert (refused.status_code, refused.json()["code"]) == (401, "endpoint_not_public")
    assert await autumn.remaining() == 50


@pytest.fixture
async def browser(emulator):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(emulator), base_url="http://autumn") as client:
        yield client


async def decide(browser, decision):
    page = (await browser.get("/api/auth/oauth2/authorize", params=REQUEST)).text
    form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    answer = await browser.post("/api/auth/oauth2/consent", data={**form, "decision": decision})
    location = answer.headers["location"]
    assert location.startswith(REQUEST["redirect_uri"])
    return {key: values[0] for key, values in parse_qs(urlsplit(location).query).items()}


def exchange(browser, code, verifier=VERIFIER):
    body = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
    body |= {"redirect_uri": REQUEST["redirect_uri"], "client_id": REQUEST["client_id"]}
    return browser.post("/api/auth/oauth2/token", data=body)


async def test_the_command_line_signs_in(browser, emulator):
    """Allowing on the page gives a code, the code a token, the token a pair of keys that work."""
    answer = await decide(browser, "allow")
    assert answer["state"] == "xyz"
    access = (await exchange(browser, answer["code"])).json()["access_token"]
    keys = (await browser.post("/cli/api-keys", headers={"authorization": f"Bearer {access}"})).json()
    async with (
        EmulatorClient(emulator, keys["sandbox_key"]) as sandbox,
        EmulatorClient(emulator, keys["prod_key"]) as live,
    ):
        assert (await sandbox.get("/v1/organization/me")).json()["env"] == "sandbox"
        assert (await live.get("/v1/organization/me")).json()["env"] == "live"


async def test_denying_gives_no_code(browser):
    """The program learns that it was denied."""
    assert (await decide(browser, "deny"))["error"] == "access_denied"


async def test_a_code_works_once_and_with_its_verifier_only(browser):
    """A code that was intercepted is of no use without the verifier, and of none a second time."""
    code = (await decide(browser, "allow"))["code"]
    assert (await exchange(browser, code, "a guess")).json()["error"] == "invalid_grant"
    code = (await decide(browser, "allow"))["code"]
    assert (await exchange(browser, code)).status_code == 200
    assert (await exchange(browser, code)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": "http://localhost.evil.example/"},
        {"code_challenge_method": "plain"},
        {"response_type": "token"},
    ],
)
async def test_only_programs_on_this_computer_may_ask(browser, change):
    """Nothing is ever sent to another host, and PKCE is not optional."""
    assert (await browser.get("/api/auth/oauth2/authorize", params=REQUEST | change)).status_code == 400


async def test_a_wrong_token_gets_no_keys(browser):
    """The key endpoint asks for a token that was handed out here."""
    answer = await browser.post("/cli/api-keys", headers={"authorization": "Bearer am_oauth_guess"})
    assert answer.status_code == 401
