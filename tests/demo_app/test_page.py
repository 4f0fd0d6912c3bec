"""The start page, in a real Chromium."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

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
# axe-core 4.10.3 from npm, as it is published, with its licence beside it.
AXE = Path(__file__).with_name("axe") / "axe.min.js"
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1280, 860)}

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def look(request) -> dict:
    """How the browser shows pages; a test may choose."""
    return getattr(request, "param", {})


@pytest.fixture
def page(browser, serve, look) -> Iterator[Page]:
    """The page, with Alice signed in; a script error fails the test."""
    errors = []
    page = browser.new_page(locale="en-US", **look)
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - Playwright marks what it is given
    page.goto(serve(word_delay=0.002))
    expect(page.locator("#remaining")).to_have_text("50")
    yield page
    page.close()
    assert errors == []


def click(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()


def ledger(page: Page) -> list[list[str]]:
    """The cells of the ledger, without times and charge ids."""
    rows = page.locator("#ledger tr").all()
    return [[cell.inner_text().partition("\n")[0] for cell in row.locator("td").all()] for row in rows]


def test_nothing_can_be_sent_before_somebody_is_signed_in(browser, serve):
    """A click that comes before the page knows its people waits for them, instead of being answered 401."""
    page = browser.new_page()
    held = []
    page.route("**/demo", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks what it is given
    page.goto(serve(word_delay=0.002))
    for name in ("Send", "Fail in mid-stream", "Expensive model", "Spend it all"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()

    held[0].continue_()
    click(page, "Send")
    expect(page.locator("#cost")).to_have_text("5 credits charged, 45 left")
    page.close()


def test_answer_streams_and_costs(page):
    """An answer appears in full, with what it cost, and the balance, the ledger and the chart show it."""
    click(page, "Send")

    expect(page.locator("#answer")).to_have_text(re.compile(r"^This answer is made up .* in the route\.$"))
    expect(page.locator("#status")).to_have_text("200 OK")
    expect(page.locator("#cost")).to_have_text("5 credits charged, 45 left")
    expect(page.locator("#remaining")).to_have_text("45")
    expect(page.locator("#ledger tr")).to_have_count(1)
    assert ledger(page) == [["gpt-4o", "\N{MINUS SIGN}5", "45"]]
    expect(page.locator("#chart-text")).to_contain_text("5 credits in 90 days")


def test_failure_in_mid_stream_gives_the_credits_back(page):
    """A broken answer shows the words that came; charge and refund are one row, with the reason and the charge's id."""
    click(page, "Fail in mid-stream")

    expect(page.locator("#status")).to_have_text("200 OK, then it broke")
    expect(page.locator("#answer")).to_have_text("This answer is made up on the spot,")
    page.get_by_text("The answer as JSON").click()
    expect(page.locator("#body")).to_contain_text('"code": "stream_failed"')
    expect(page.locator("#ledger .back").first).to_have_text("given back: The model failed in mid-stream.")
    expect(page.locator("#remaining")).to_have_text("50")
    assert ledger(page) == [["gpt-4o", "5 \N{RIGHTWARDS ARROW} 0", "50"]]
    expect(page.locator("#ledger")).to_contain_text(re.compile(r"[0-9a-f]{16}-\d+"))


def test_the_code_that_answered_is_beside_the_answer(page):
    """It is the source of the route itself, and what is billing in it is marked."""
    expect(page.locator("#code")).to_contain_text("async def create_chat_completion(")
    marks = set(page.locator("#code mark").all_inner_texts())
    assert marks == {"charge: ModelCharge", "charge.model", "charge.refund(str(error))"}


def test_a_refusal_is_a_paywall_and_the_call_is_tried_again(page):
    """Out of credits, a plan is a button; what it costs is shown before, and after check-out the call goes through."""
    click(page, "Spend it all")

    expect(page.locator("#status")).to_have_text("402 Payment Required")
    expect(page.locator("#paywall-text")).to_have_text("This call needs 1 credit; you have 0.")
    expect(page.locator("#plans button")).to_have_text([re.compile("^Pro"), re.compile("^Credit top-up")])
    page.locator("#plans button").nth(1).click()
    expect(page.locator("#checkout-title")).to_have_text("Credit top-up: $5.00 now")
    click(page, "Go to check-out")
    click(page, "Confirm")

    expect(page.locator("#cost")).to_have_text("1 credit charged, 499 left")
    expect(page.locator("#ledger tr").nth(1)).to_contain_text("Credit top-up, bought")
    assert ledger(page)[:3] == [
        ["gpt-4o-mini", "\N{MINUS SIGN}1", "499"],
        ["Credit top-up, bought", "+500", "500"],
        ["gpt-4o", "\N{MINUS SIGN}5", "0"],
    ]


def test_declining_leads_back(page):
    """Whoever declines at the check-out has a way back, and the paywall is still there."""
    click(page, "Spend it all")
    page.locator("#plans button").first.click()
    expect(page.locator("#later")).to_have_text("Then $20.00 a month.")
    click(page, "Go to check-out")
    click(page, "Decline")
    page.get_by_role("link", name="Back").click()

    expect(page.locator("#paywall-title")).to_have_text("You are out of credits")


def test_expensive_model(page):
    """The most expensive model costs 30, once; the second time it is too much."""
    click(page, "Expensive model")
    expect(page.locator("#cost")).to_have_text("30 credits charged, 20 left")

    click(page, "Expensive model")
    expect(page.locator("#paywall-text")).to_have_text("This call needs 30 credits; you have 20.")


def test_each_person_has_a_balance(page):
    """Bob's balance is his own, and stays chosen after a reload."""
    click(page, "Send")
    expect(page.locator("#remaining")).to_have_text("45")

    page.get_by_label("Signed in as").select_option("Bob")
    expect(page.locator("#remaining")).to_have_text("50")
    page.reload()
    expect(page.get_by_label("Signed in as")).to_have_value("demo-bob")


def test_overage_is_shown_in_money(page):
    """On Pro, credits beyond those included say what they will cost."""
    page.locator("#buy").get_by_role("button", name="Pro").click()
    click(page, "Go to check-out")
    click(page, "Confirm")
    expect(page.locator("#plan")).to_contain_text("Pro plan")
    expect(page.locator("#plan")).to_contain_text("then $1 per 100")

    body = {"model": "claude-opus-4", "messages": [{"role": "user", "content": "Hi"}]}
    page.evaluate(
        """async (body) => { for (let i = 0; i < 70; i++) await call("/ai/v1/chat/completions", { body }) }""",
        {**body, "max_tokens": 1},
    )
    expect(page.locator("#plan")).to_contain_text("100 credits over, $1.00 on the next invoice")


def test_hanging_up(browser, serve):
    """Hanging up ends the answer, and the page says that the credits stay spent."""
    page = browser.new_page()
    page.goto(serve(word_delay=0.2))
    click(page, "Send")
    expect(page.locator("#answer")).to_contain_text("This")
    click(page, "Hang up")

    expect(page.locator("#notice")).to_contain_text("You hung up")
    expect(page.locator("#remaining")).to_have_text("45")
    page.close()


def test_autumn_is_down_and_comes_back(page):
    """A call is a 503 and costs nothing; the page says what the service says, and goes on when Autumn is back."""
    click(page, "Is down")
    expect(page.locator("#meaning")).to_contain_text("Nothing reaches Autumn")
    click(page, "Send")
    expect(page.locator("#status")).to_have_text("503 Service Unavailable")
    expect(page.locator("#granted")).to_contain_text("as last known")
    expect(page.locator("#log")).to_contain_text("connection refused")

    click(page, "Works")
    expect(page.locator("#granted")).to_have_text("of 50 credits")
    expect(page.locator("#remaining")).to_have_text("50")


def test_an_answer_that_is_dropped_after_the_work_is_given_back(page):
    """The credits are gone for a moment and come back by themselves, as one row."""
    click(page, "Drops an answer")
    expect(page.locator("#meaning")).to_contain_text("found in Autumn's log and given back after 5 seconds")
    click(page, "Send")
    expect(page.locator("#status")).to_have_text("503 Service Unavailable")
    expect(page.locator("#remaining")).to_have_text("45")
    expect(page.locator("#meaning")).to_contain_text("1 charge waits in the outbox")

    expect(page.locator("#remaining")).to_have_text("50")
    assert ledger(page) == [["gpt-4o", "5 \N{RIGHTWARDS ARROW} 0", "50"]]


def test_the_next_month_refills(page):
    """The clock of the emulator moves on, and the plan gives its credits again."""
    click(page, "Expensive model")
    expect(page.locator("#remaining")).to_have_text("20")
    click(page, "Next month")

    expect(page.locator("#remaining")).to_have_text("50")
    expect(page.locator("#ledger")).to_contain_text("a new month")


def test_starting_over(page):
    """Start over forgets what was used, and the next call works as if for a new customer."""
    click(page, "Expensive model")
    expect(page.locator("#remaining")).to_have_text("20")

    click(page, "Start over")
    expect(page.locator("#remaining")).to_have_text("50")
    click(page, "Send")
    expect(page.locator("#remaining")).to_have_text("45")


def test_the_keyboard_alone_is_enough(page):
    """From the prompt to a purchase without a mouse; the dialog takes the focus, and Escape closes it."""
    page.get_by_label("Prompt").focus()
    for _ in range(4):  # past the model and Send, to Fail in mid-stream and Expensive model
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Expensive model")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#cost")).to_have_text("30 credits charged, 20 left")
    page.keyboard.press("Enter")
    expect(page.locator("#paywall-title")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Go to check-out")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#checkout")).to_be_hidden()
    expect(page.locator("#plans button").first).to_be_focused()


@pytest.mark.parametrize(
    "look",
    [
        {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        for width, height in SIZES.values()
        for scheme in ("light", "dark")
    ],
    ids=[f"{size}-{scheme}" for size in SIZES for scheme in ("light", "dark")],
    indirect=True,
)
def test_everybody_can_use_it(page, look):
    """axe-core finds nothing, nothing is wider than the screen, and the balance stays in sight, in each state."""

    def check() -> None:
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    check()
    click(page, "Fail in mid-stream")
    expect(page.locator("#ledger .back").first).to_be_visible()
    expect(page.locator("#status")).to_be_in_viewport()
    expect(page.locator("#remaining")).to_be_in_viewport()
    check()
    click(page, "Spend it all")
    expect(page.locator("#paywall-title")).to_be_in_viewport()
    check()
    page.locator("#plans button").first.click()
    expect(page.locator("#checkout")).to_be_visible()
    check()
    click(page, "Go to check-out")
    expect(page.get_by_role("button", name="Confirm")).to_be_visible()
    check()


def test_it_asks_nobody_else_and_is_small(browser, serve):
    """Everything comes from the service itself, and opening the page takes less than 100 KB."""
    page = browser.new_page()
    url = serve(word_delay=0.002)
    answers = []
    page.on("response", lambda response: answers.append(response))  # noqa: PLW0108 - as above
    page.goto(url)
    expect(page.locator("#remaining")).to_have_text("50")

    assert [answer.url for answer in answers if not answer.url.startswith(url)] == []
    assert sum(len(answer.body()) for answer in answers) < 100_000
    page.close()
