"""events.aggregate: filters, groups, and what was taken from each balance."""

import pytest

DAY = 86_400_000


@pytest.fixture
async def used(autumn, time):
    """Two days of use: 3 small and 5 large, then 2 small, 1 tiny and 4 without a model."""
    for uses in ({"small": 3, "large": 5}, {"small": 2, "tiny": 1, None: 4}):
        for model, value in uses.items():
            properties = {"model": model, "by": {"team": "red"}} if model else {}
            await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=value, properties=properties)
        time.now += DAY

    async def aggregate(**body):
        return await autumn.ok("events.aggregate", **{"customer_id": "ann", "feature_id": "usage", **body})

    return aggregate


def _grouped(answer, feature="usage"):
    """Return the groups of each day on which something was used."""
    return [entry["grouped_values"][feature] for entry in answer["list"] if entry["values"][feature]]


async def test_filters_find_by_properties(used):
    """`filter_by` counts only the events whose properties have these values, nested ones too."""
    small = await used(filter_by={"model": "small"})
    assert small["total"] == {"usage": {"count": 2, "sum": 5}}
    assert (await used(filter_by={"model": "large", "properties.by.team": "red"}))["total"]["usage"]["sum"] == 5
    assert (await used(filter_by={"model": "large", "by.team": "blue"}))["total"] == {}


async def test_filters_are_strings_and_five_at_most(autumn):
    """A filter that is no string, or a sixth one, is refused."""
    body = {"customer_id": "ann", "feature_id": "usage"}
    number = await autumn.call("events.aggregate", **body, filter_by={"model": 3})
    assert (number.status_code, number.json()["message"]) == (
        400,
        "filter_by.model: Invalid input: expected string, received number",
    )
    many = await autumn.call("events.aggregate", **body, filter_by=dict.fromkeys("abcdef", "x"))
    assert many.status_code == 400


async def test_every_bin_names_every_group(used):
    """A group that appears in one bin is in all of them; what has no group counts in the total only."""
    answer = await used(group_by="properties.model")
    assert _grouped(answer) == [{"small": 3, "large": 5, "tiny": 0}, {"small": 2, "large": 0, "tiny": 1}]
    assert [entry["values"]["usage"] for entry in answer["list"]][-3:-1] == [8, 3]
    assert answer["total"]["usage"]["sum"] == 15


async def test_the_largest_groups_of_a_bin_are_named(used):
    """With `max_groups` each bin keeps its own largest groups, and the others are one, `Other`."""
    answer = await used(group_by="properties.model", max_groups=1)
    assert _grouped(answer) == [{"large": 5, "Other": 3, "small": 0}, {"large": 0, "Other": 1, "small": 2}]


async def test_groups_by_customer_entity_and_plan(autumn, used):
    """Events can be grouped by who caused them and by the plan that paid."""
    await autumn.ok("customers.get_or_create", customer_id="bob")
    await autumn.ok("entities.create", customer_id="bob", entity_id="desk", feature_id="seats")
    await autumn.ok("balances.track", customer_id="bob", entity_id="desk", feature_id="usage", value=7)

    everybody = {"feature_id": "usage", "range": "7d"}
    by_customer = await autumn.ok("events.aggregate", **everybody, group_by="$customer_id")
    assert _grouped(by_customer)[-1] == {"ann": 0, "bob": 7}
    by_entity = await autumn.ok("events.aggregate", **everybody, group_by="$entity_id")
    assert _grouped(by_entity) == [{"desk": 7}]
    assert _grouped(await used(group_by="$plan_id")) == [{"free": 8}, {"free": 7}]
    assert "grouped_values" not in (await used(group_by="$feature_id"))["list"][0]


async def test_deductions_say_which_balance_paid(autumn, used):
    """`aggregate_on: deducted` adds what left each balance: credits, by the rate of the feature that was used."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="images", value=2)
    answer = await used(feature_id="images", range="24h", aggregate_on="deducted")
    assert answer["total"] == {"images": {"count": 1, "sum": 2}}
    (period,) = answer["deductions"]
    credits_ = period["values"]["credits"]
    (balance,) = credits_.pop("balances")
    assert credits_ == {"feature_type": "credit_system", "deducted": 5, "events": 1}
    expected = {"plan_id": "free", "entity_id": None, "credit_cost": 2.5, "deducted": 5, "events": 1}
    assert balance.items() >= expected.items()
    assert balance["reset"]["interval"] == "month"
    assert "grouped_values" not in period


async def test_deductions_by_feature(autumn, used):
    """Grouped by feature, deductions tell what each one took out of a shared balance, and at which rate."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="images", value=2)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=1)
    body = {"feature_id": ["usage", "images"], "aggregate_on": "deducted", "group_by": "$feature_id", "range": "24h"}
    latest = (await used(**body))["deductions"][-1]
    (split,) = latest["grouped_values"].values()
    assert split == {
        "usage": {"deducted": 1, "credit_cost": 1},
        "images": {"deducted": 5, "credit_cost": 2.5},
    }
    assert latest["values"]["credits"]["balances"][0]["credit_cost"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"feature_id": "usage"},
        {"customer_id": "ann", "feature_id": "usage", "group_by": "$plan_id"},
        {"customer_id": "ann", "feature_id": "usage", "filter_by": {"model": "small"}},
    ],
    ids=["nobody", "by plan", "filtered"],
)
async def test_deductions_are_not_kept_by_property_or_for_everybody(autumn, body):
    """What Autumn cannot split its deductions by is refused, and not left out in silence."""
    answer = await autumn.call("events.aggregate", **body, aggregate_on="deducted")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
