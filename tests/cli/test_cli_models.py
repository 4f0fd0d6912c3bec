"""`autumn models`."""

import csv
import json
from pathlib import Path

import pytest

from cli.processes import Run

_PRICES = '[models]\n"gpt-4o" = 2\n"claude-sonnet-4" = 0.5\n"house-model" = 1\n'


@pytest.fixture
def prices(here: Path) -> Path:
    """A price list: one model above its cost, one below, one that nobody else knows."""
    path = here / "prices.toml"
    path.write_text(_PRICES)
    return path


def test_each_price_is_compared_with_what_the_model_costs(prices: Path, autumn: Run) -> None:
    """The table says what to charge, and the exit code that one model loses money."""
    result = autumn("models", "--prices", "prices.toml", "--margin", "0", "--format", "csv")
    assert result.returncode == 3
    rows = {row["model"]: row for row in csv.DictReader(result.stdout.splitlines())}
    assert {name: row["finding"] for name, row in rows.items()} == {
        "gpt-4o": "",
        "claude-sonnet-4": "below cost",
        "house-model": "",
    }
    assert rows["gpt-4o"]["dollars_per_call"] == "0.0075"
    assert rows["gpt-4o"]["suggested"] == "0.75"
    assert rows["house-model"]["suggested"] == ""


def test_a_margin_is_part_of_the_suggestion(prices: Path, autumn: Run) -> None:
    """Twice the cost at a margin of one half; a price between the two is below the margin, and no failure."""
    result = autumn(
        *("models", "gpt-4o", "--prices", "prices.toml", "--format", "json"),
        *("--margin", "0.5", "--dollars-per-credit", "0.005"),
    )
    (found,) = json.loads(result.stdout)["list"]
    assert found["suggested"] == "3"
    assert found["finding"] == "below margin"
    assert result.returncode == 0


def test_models_that_are_not_listed_yet_get_a_suggestion(autumn: Run) -> None:
    """A price list can be begun with it: no file is needed."""
    result = autumn("models", "gpt-4o", "--input-tokens", "2000", "--output-tokens", "0", "--format", "json")
    assert result.returncode == 0
    (found,) = json.loads(result.stdout)["list"]
    assert found["dollars_per_call"] == "0.005"
    assert found["credits"] is None


def test_a_catalog_that_does_not_grant_the_models_is_said(prices: Path, catalog_file: Path, autumn: Run) -> None:
    """The price list charges to a feature that no plan grants: every call would be refused."""
    fits = autumn("models", "gpt-4o", "--prices", "prices.toml")
    assert (fits.returncode, fits.stderr) == (0, "")
    result = autumn("models", "gpt-4o", "--prices", "prices.toml", env={"AUTUMN_FEATURE_ID": "images"})
    assert result.returncode == 3
    assert 'Warning: autumn_config.py: feature "images": a gate charges it' in result.stderr


def test_without_a_price_list_and_without_names_it_says_what_to_give(autumn: Run) -> None:
    """There is nothing to show."""
    result = autumn("models")
    assert result.returncode == 1
    assert "--prices" in result.stderr
    assert "AUTUMN_PRICES" in result.stderr


def test_a_price_list_that_is_wrong_names_its_line(prices: Path, autumn: Run) -> None:
    """The error of the service is the error of the command."""
    prices.write_text('[models]\n"gpt-4o" = -1\n')
    result = autumn("models", env={"AUTUMN_PRICES": "prices.toml"})
    assert result.returncode == 1
    assert "prices.toml" in result.stderr
    assert "line 2" in result.stderr


@pytest.mark.parametrize(("option", "value"), [("--margin", "1"), ("--dollars-per-credit", "0")])
def test_terms_that_make_no_sense_are_refused(option: str, value: str, autumn: Run) -> None:
    """A margin of everything, and credits that are worth nothing."""
    result = autumn("models", "gpt-4o", option, value)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_rates_are_shown_and_checked(here: Path, autumn: Run) -> None:
    """A price by tokens is compared for a typical call, and a price by image is shown."""
    (here / "prices.toml").write_text(
        '[models]\n"gpt-4o" = { input = 100, output = 400, cached = 50 }\n'
        '"dall-e-3" = { images = { "1024x1024" = 4 } }\n'
    )
    result = autumn("models", "--prices", "prices.toml", "--margin", "0", "--format", "csv")
    rows = {row["model"]: row for row in csv.DictReader(result.stdout.splitlines())}
    assert rows["gpt-4o"]["price"] == "100 input, 50 cached, 400 output per 1000000 tokens"
    assert (rows["gpt-4o"]["credits"], rows["gpt-4o"]["finding"]) == ("0.3", "below cost")
    assert (rows["dall-e-3"]["price"], rows["dall-e-3"]["credits"]) == ("4 for 1024x1024 per image", "")
    assert result.returncode == 3
