"""Price lists in files: what is read, and the line that a refusal names."""

from decimal import Decimal

import pytest

from fastapi_autumn.errors import PriceListError
from fastapi_autumn.pricing import ModelPrices


def read(tmp_path, text):
    """Read `text` as a price list."""
    path = tmp_path / "prices.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return ModelPrices.from_toml(path)


def test_a_file_is_read_exactly(tmp_path):
    """Numbers keep the digits of the file; aliases are optional; a path may be text."""
    prices = read(tmp_path, '[models]\r\ngpt-4o = 3\r\n"gpt-4.1" = 0.1\r\n\r\n[aliases]\r\nomni = "gpt-4o"\r\n')
    assert prices.models == {"gpt-4o": Decimal(3), "gpt-4.1": Decimal("0.1")}
    assert ModelPrices.from_toml(str(tmp_path / "prices.toml")).get_model_credits("omni") == 3


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[models]\ngpt-4o = 3\no3 = -1\n", 3, "must not be negative"),
        ("# a\n\n[models]\n'gpt-4o' = 3\n\"o\\u0033\" = nan\n", 5, "price of 'o3' is no price"),
        ('models."gpt-4o" = 0\n', 1, "more than zero"),
        ("models = { a = 1, b = 0 }\n", 1, "price of 'b'"),
        ("[models]\na = 1\n'o3' = '''\n1\n2'''\nb = 1", 3, "price of 'o3'"),
        ("[models]\na = 1\nb = [\n1,\n2]\n", 3, "price of 'b'"),
        ("[models]\na = 1 # o3 = 0\n# o3 = 0\no3 = 0\n", 4, "price of 'o3'"),
        ("[models]\ngpt-4o = 1\ngpt-4.1 = 1\n", 3, 'name with a dot needs quotes; write "gpt-4.1" ='),
        ("[models]\ngpt-4o = 1\n[models.gpt-4]\n1 = 2\n", 4, "name with a dot needs quotes"),
        ("[models]\na = 1\n[aliases]\nb = 'a'\nc = 'd'\n", 5, "leads to 'd', which is not listed"),
        ("[models]\na = 1\n[aliases]\nc = 'd'\nd = 'c'\n", 4, "goes in a circle: c -> d -> c"),
        ("[models]\na = 1\n[aliases]\na = 'a'\n", 4, "listed as a model and as an alias"),
        ("[models]\na = 1\n[alias]\nb = 'a'\n", 3, "'alias' is unknown"),
        ("aliases = 'a'\n[models]\na = 1", 1, "'aliases' must be a table"),
        ("models = [1]\n", 1, "'models' must be a table"),
        ("[models]\na = 1\nb = 2024-01-01\n", 3, "a value of type date"),
    ],
)
def test_a_refusal_names_file_and_line(tmp_path, text, line, reason):
    """However a key is written, the refusal points at the line on which its statement starts."""
    with pytest.raises(PriceListError, match=reason) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'prices.toml'}, line {line}: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[models]\nopenai/gpt = 1\n", r"at line 2, column \d+.*with quotes around a name"),
        ("[models]\na = 1\na = 2\n", r"overwrite a value \(at line 3"),
        ("[models]\na = " + "9" * 5000, 'write "model name" = credits'),
        ("", "at least one model"),
        ("[aliases]\na = 'b'\n", "at least one model"),
        (b"[models]\na = 1\n# \xff\n", "line 3: not UTF-8"),
    ],
)
def test_a_file_that_is_no_price_list(tmp_path, text, reason):
    """What does not parse is refused with the parser's own line and with what to write."""
    with pytest.raises(PriceListError, match=reason) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path / "prices.toml"))


def test_a_missing_file(tmp_path):
    """A path that cannot be read says so with the system's reason."""
    with pytest.raises(PriceListError, match=r"cannot read the price list .*nowhere\.toml: No such file"):
        ModelPrices.from_toml(tmp_path / "nowhere.toml")
