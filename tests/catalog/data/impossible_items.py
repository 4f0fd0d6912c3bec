"""What a type checker must refuse: each line that is marked, and no other."""

from fastapi_autumn.catalog import Proration, Rollover, Tier, feature, item, plan, price

usage = feature(id="usage", name="Usage", type="metered", consumable=True)
kept = Rollover(max=5, expiry_duration_type="forever")
prorated = Proration(on_increase="prorate_immediately", on_decrease="none")
monthly = price(1, interval="month", billing_method="usage_based")
at_reset = price(1, billing_method="usage_based")
tiers = [Tier(10, 1), Tier("inf", 2)]

item(usage, reset="month", price=monthly)  # wrong: a usage-based price resets by itself
item(usage, included=5, price=at_reset)  # wrong: neither says how often
item(usage, price=price(1, interval="month"))  # wrong: the price of a plan
item(usage, price=monthly, proration=prorated)  # wrong: only what is prepaid is prorated
item(usage, rollover=kept)  # wrong: nothing resets, so nothing rolls over
item(usage, unlimited=True, included=5)  # wrong: nothing to include
item(usage, unlimited=True, price=monthly)  # wrong: nothing to sell
item(usage, reset="decade")  # wrong: no such interval
item(usage, reset="month", per=100)  # wrong: no such argument
item(reset="month")  # wrong: of what?
price(1, interval="day", billing_method="prepaid")  # wrong: nothing is billed by the day
price(1, interval="month", billing_method="postpaid")  # wrong: no such method
price(1, tiers=tiers, tier_behavior="graduated", billing_method="prepaid")  # wrong: amount and tiers
price(tiers=tiers, billing_method="prepaid", interval="month")  # wrong: tiers need a behavior
price(tiers=tiers, tier_behavior="volume", billing_method="usage_based", interval="month")  # wrong: volume is prepaid
price(billing_method="prepaid", interval="month")  # wrong: how much?
plan(id="p", name="P", price=monthly)  # wrong: the price of an item
plan(id="p", name="P", items=[usage])  # wrong: a feature is no item
feature(id="f", name="F", type="metered")  # wrong: consumable or not?
feature(id="f", name="F", type="boolean", consumable=True)  # wrong: a flag is not consumed
feature(id="f", name="F", type="credit_system")  # wrong: credits for what?
