"""The price list: what one call of each model costs, in credits."""

from fastapi_autumn.pricing._amounts import credits, rounded_up, to_json_number  # noqa: A004 - Autumn's own word for the unit
from fastapi_autumn.pricing._models import ModelPrices
from fastapi_autumn.pricing._sources import PriceList, Prices, price_list

__all__ = ["ModelPrices", "PriceList", "Prices", "credits", "price_list", "rounded_up", "to_json_number"]
