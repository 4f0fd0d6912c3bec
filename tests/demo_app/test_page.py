"""The start page, in a real Chromium."""

import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, serve) -> Iterator[Page]:
    """The page, with Alice signed in; a script error fails the test."""
    errors = []
    page = browser.new_page(locale="en-US")
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - Playwright marks what it is given
    page.goto(serve(word_delay=0.002))
    expect(page.locator("#remaining")).to_have_text("50")
    yield page
    page.close()
    assert errors == []


def test_nothing_can_be_sent_before_somebody_is_signed_in(browser, serve):
    """A click that comes before the page knows its people waits for them, instead of being answered 401."""
    page = browser.new_page()
    held = []
    page.route("**/demo", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks what it is given
    page.goto(serve(word_delay=0.002))
    for name in ("Send", "Fail in mid-stream", "Expensive model", "Spend it all", "Buy 500 credits", "Go Pro"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()

    held[0].continue_()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#cost")).to_have_text("5 credits charged, 45 left")
    page.close()


def test_answer_streams_and_costs(page):
    """An answer appears in full, with what it cost, and the balance and the record show it."""
    page.get_by_role("button", name="Send").click()

    expect(page.locator("#answer")).to_have_text(re.compile(r"^This answer is made up .* in the route\.$"))
    expect(page.locator("#status")).to_have_text("200 OK")
    expect(page.locator("#cost")).to_have_text("5 credits charged, 45 left")
    expect(page.locator("#remaining")).to_have_text("45")
    expect(page.locator("#activity li")).to_have_text([re.compile("^\N{MINUS SIGN}5gpt-4o")])


def test_failure_in_mid_stream_gives_the_credits_back(page):
    """A broken answer shows the words that came and the error, and the credits return to the balance."""
    page.get_by_role("button", name="Fail in mid-stream").click()

    expect(page.locator("#status")).to_have_text("200 OK, then it broke")
    expect(page.locator("#answer")).to_have_text("This answer is made up on the spot,")
    expect(page.locator("#body")).to_contain_text('"code": "stream_failed"')
    expect(page.locator("#remaining")).to_have_text("50")
    expect(page.locator("#activity li")).to_have_text(
        [re.compile("^.5given back: The model failed in mid-stream"), re.compile("^\N{MINUS SIGN}5gpt-4o")]
    )


def test_spending_it_all_shows_the_refusal(page):
    """Out of credits, the customer sees the 402 with what is missing and the plans that would help."""
    page.get_by_role("button", name="Spend it all").click()

    expect(page.locator("#status")).to_have_text("402 Payment Required")
    expect(page.locator("#notice")).to_have_text(
        "This call needs 1 credit; you have 0. Pro or Credit top-up would help."
    )
    expect(page.locator("#body")).to_contain_text('"remaining": 0')
    expect(page.locator("#remaining")).to_have_text("0")


def test_expensive_model(page):
    """The most expensive model costs 30, once; the second time it is too much."""
    page.get_by_role("button", name="Expensive model").click()
    expect(page.locator("#cost")).to_have_text("30 credits charged, 20 left")

    page.get_by_role("button", name="Expensive model").click()
    expect(page.locator("#notice")).to_have_text(
        "This call needs 30 credits; you have 20. Pro or Credit top-up would help."
    )


def test_each_person_has_a_balance(page):
    """Bob's balance is his own, and stays chosen after a reload."""
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#remaining")).to_have_text("45")

    page.get_by_role("button", name="Bob").click()
    expect(page.locator("#remaining")).to_have_text("50")
    page.reload()
    expect(page.get_by_role("button", name="Bob")).to_have_attribute("aria-pressed", "true")


def test_buying(page):
    """A top-up and the Pro plan are bought at the emulator's check-out, and the balance follows."""
    page.get_by_role("button", name="Buy 500 credits").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#remaining")).to_have_text("550")

    page.get_by_role("button", name="Go Pro").click()
    expect(page.locator("#plan")).to_contain_text("Pro plan")
    expect(page.locator("#remaining")).to_have_text("2,500")
    expect(page.get_by_role("button", name="Go Pro")).to_be_disabled()


def test_hanging_up(browser, serve):
    """Hanging up ends the answer, and the page says that the credits stay spent."""
    page = browser.new_page()
    page.goto(serve(word_delay=0.2))
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_contain_text("This")
    page.get_by_role("button", name="Hang up").click()

    expect(page.locator("#notice")).to_contain_text("You hung up")
    expect(page.locator("#remaining")).to_have_text("45")
    page.close()


def test_starting_over(page):
    """Start over forgets what was used, and the next call works as if for a new customer."""
    page.get_by_role("button", name="Expensive model").click()
    expect(page.locator("#remaining")).to_have_text("20")

    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#remaining")).to_have_text("50")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#remaining")).to_have_text("45")
