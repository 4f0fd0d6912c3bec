"""What a call costs, in credits: a fixed amount for each model, or a rate for what the call uses."""

from fastapi_autumn.pricing._amounts import credits, rounded_up, to_json_number  # noqa: A004 - Autumn's own word for the unit
from fastapi_autumn.pricing._counts import Counts
from fastapi_autumn.pricing._models import ModelPrices
from fastapi_autumn.pricing._rates import Rate, images, per_character, per_second, per_unit, tokens
from fastapi_autumn.pricing._requests import CallRequest
from fastapi_autumn.pricing._sources import Price, PriceList, Prices, price_list, price_of

__all__ = [
    "CallRequest",
    "Counts",
    "ModelPrices",
    "Price",
    "PriceList",
    "Prices",
    "Rate",
    "credits",
    "images",
    "per_character",
    "per_second",
    "per_unit",
    "price_list",
    "price_of",
    "rounded_up",
    "to_json_number",
    "tokens",
]
