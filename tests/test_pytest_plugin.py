"""The fixtures for users' tests, in test runs of their own."""

from pathlib import Path

import pytest

ARGUMENTS = [
    "-q",
    "-W",
    "error",
    "-W",
    "default::DeprecationWarning",
    "-p",
    "anyio",
    "-p",
    "fastapi_autumn.pytest_plugin",
    "-p",
    "no:cacheprovider",
]

APP = """
    from fastapi import FastAPI
    from fastapi_autumn import Autumn, AutumnMiddleware, ModelCharge

    def create_app(settings):
        autumn = Autumn(settings, prices={"gpt-4o": 5})
        app = FastAPI(lifespan=autumn.lifespan)
        app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda request: request.headers.get("x-user"))

        @app.post("/ai/{how}")
        async def answer(how: str, charge: ModelCharge):
            if how == "crash":
                raise RuntimeError
            return charge.model

        return app
"""


@pytest.fixture(autouse=True)
def _no_autoload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the plugins that are named: whatever else is installed cannot help, or get in the way."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_an_application_is_charged_and_looked_at(pytester: pytest.Pytester) -> None:
    """Settings, emulator and customer belong together, each test begins afresh, and sync and async tests both work."""
    pytester.makepyfile(
        app=APP,
        test_app="""
            import httpx
            import pytest
            from decimal import Decimal
            from fastapi.testclient import TestClient
            from fastapi_autumn.emulator import Fault
            from fastapi_autumn.models import CustomerRecord
            from app import create_app

            def client_of(settings):
                return TestClient(create_app(settings), headers={"x-user": "ada"}, raise_server_exceptions=False)

            @pytest.mark.parametrize("number", range(2))
            def test_charge(number, autumn_settings, autumn_customer):
                with client_of(autumn_settings) as client:
                    assert client.post("/ai/chat", json={"model": "gpt-4o"}).status_code == 200
                customer = autumn_customer("ada")
                assert isinstance(customer, CustomerRecord)
                assert customer.balances["ai_credits"].remaining == Decimal(45)
                assert [plan.plan_id for plan in customer.subscriptions] == ["free"]

            def test_refund(autumn_customer, autumn_settings):
                with client_of(autumn_settings) as client:
                    assert client.post("/ai/crash", json={"model": "gpt-4o"}).status_code == 500
                assert autumn_customer("ada").balances["ai_credits"].remaining == 50

            @pytest.mark.anyio
            @pytest.mark.parametrize("anyio_backend", ["asyncio"])
            async def test_async(anyio_backend, autumn_settings, autumn_customer):
                transport = httpx.ASGITransport(create_app(autumn_settings))
                async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                    answer = await client.post("/ai/chat", json={"model": "gpt-4o"}, headers={"x-user": "ada"})
                    assert answer.status_code == 200
                    assert autumn_customer("ada").balances["ai_credits"].usage == 5

            def test_clock(autumn_settings, autumn_emulator):
                with client_of(autumn_settings) as client:
                    for expected in [200] * 10 + [402]:
                        assert client.post("/ai/chat", json={"model": "gpt-4o"}).status_code == expected
                    autumn_emulator.clock.advance(days=31)
                    assert client.post("/ai/chat", json={"model": "gpt-4o"}).status_code == 200

            def test_faults(autumn_settings, autumn_emulator, autumn_customer):
                autumn_emulator.faults.add("*", Fault(kind="refuse"))
                with client_of(autumn_settings) as client:
                    assert client.post("/ai/chat", json={"model": "gpt-4o"}).status_code == 503
                assert autumn_customer("ada").balances["ai_credits"].usage == 0

            def test_prepared(autumn_emulator, autumn_customer):
                autumn_customer("ada")
                plan = {"customer_id": "ada", "plan_id": "pro", "no_billing_changes": True}
                autumn_emulator.call("billing.attach", plan)
                assert autumn_customer("ada").balances["ai_credits"].granted == 2000
        """,
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=7)


def test_catalog_and_settings_can_be_overridden(pytester: pytest.Pytester) -> None:
    """A project's own plans count, whichever fixture a test asks for first, and its settings build on these."""
    pytester.makeconftest(
        """
        import pytest
        from fastapi_autumn.catalog import Catalog, feature, item, plan

        @pytest.fixture
        def autumn_catalog():
            ai_usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True)
            trial = plan(id="trial", name="Trial", auto_enable=True, items=[item(ai_usage, included=6, reset="day")])
            return Catalog((ai_usage,), (trial,))

        @pytest.fixture
        def autumn_settings(autumn_settings):
            return autumn_settings.model_copy(update={"charging": "hold"})
        """
    )
    pytester.makepyfile(
        app=APP,
        test_app="""
            from fastapi.testclient import TestClient
            from app import create_app

            def test_one(autumn_settings, autumn_customer):
                assert autumn_settings.charging == "hold"
                with TestClient(create_app(autumn_settings), headers={"x-user": "ada"}) as client:
                    assert client.post("/ai/chat", json={"model": "gpt-4o"}).status_code == 200
                    assert client.post("/ai/chat", json={"model": "gpt-4o"}).status_code == 402
                assert autumn_customer("ada").balances["ai_usage"].remaining == 1
        """,
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1)


def test_the_catalog_file_of_a_project_is_the_default(pytester: pytest.Pytester) -> None:
    """What `autumn_config.py` says is what the tests run with, as the application does."""
    pytester.makepyfile(
        autumn_config="""
            from fastapi_autumn.catalog import feature, item, plan

            tokens = feature(id="tokens", name="Tokens", type="metered", consumable=True)
            free = plan(id="free", name="Free", auto_enable=True, items=[item(tokens, included=7, reset="month")])
        """,
        test_app="""
            def test_one(autumn_customer):
                assert autumn_customer("ada").balances["tokens"].granted == 7
        """,
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1)


def test_no_test_reaches_a_real_account(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a key in the environment nor one in `.env` gets into the settings; other variables count."""
    monkeypatch.setenv("AUTUMN_SECRET_KEY", "am_sk_live_abcdef")
    monkeypatch.setenv("AUTUMN_EMULATOR", "false")
    monkeypatch.setenv("AUTUMN_FEATURE_ID", "tokens")
    (pytester.path / ".env").write_text("AUTUMN_SECRET_KEY=am_sk_live_abcdef\nAUTUMN_ON_UNAVAILABLE=allow\n")
    pytester.makepyfile(
        """
        def test_one(autumn_settings, tmp_path):
            autumn_settings.require_backend()
            assert autumn_settings.emulator
            assert autumn_settings.secret_key is None
            assert autumn_settings.feature_id == "tokens"
            assert autumn_settings.on_unavailable == "deny"
            assert autumn_settings.emulator_path.parent == tmp_path
            assert str(tmp_path) in autumn_settings.outbox_url
        """
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1)


def test_it_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    """A run without these fixtures loads the plugin's own file, and not even FastAPI."""
    pytester.makepyfile(
        """
        import sys

        def test_one():
            loaded = set(sys.modules)
            ours = {name for name in loaded if name.partition(".")[0] == "fastapi_autumn"}
            assert ours == {"fastapi_autumn", "fastapi_autumn._version", "fastapi_autumn.pytest_plugin"}
            assert not loaded & {"fastapi", "starlette", "pydantic", "httpx", "sqlalchemy"}
        """
    )
    arguments = ["-q", "-W", "error", "-p", "fastapi_autumn.pytest_plugin", "-p", "no:cacheprovider"]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=1)


def test_pytest_finds_it_by_itself(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed is enough, and `pytest --fixtures` explains what there is."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    result = pytester.runpytest_subprocess("--fixtures", "-q", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines_random(
        [f"autumn_{name} -- *" for name in ("catalog", "customer", "emulator", "settings")]
    )
    assert "no docstring available" not in result.stdout.str().partition("autumn_catalog")[2].partition("---")[0]


def test_the_page_about_testing_names_every_fixture() -> None:
    """A fixture that is not written about does not exist."""
    from fastapi_autumn import pytest_plugin

    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
    assert [name for name in pytest_plugin.__all__ if f"| `{name}` |" not in page] == []
