"""Idempotency keys, in the header and in the body."""

from fastapi_autumn.emulator import EMULATOR_KEY

USE = {"customer_id": "ann", "feature_id": "usage", "value": 5}


async def test_a_repeat_is_refused_and_does_nothing(autumn):
    """The second request with a key gets a 409, and the first answer is not replayed."""
    for key in ({"idempotency_key": "k"}, {}):
        headers = {} if key else {"idempotency-key": "k"}
        await autumn.call("balances.track", headers=headers, **USE, **key)
        repeat = await autumn.call("balances.track", headers=headers, **USE, **key)
        assert (repeat.status_code, repeat.json()["code"]) == (409, "duplicate_idempotency_key")
    assert await autumn.remaining() == 40


async def test_a_header_key_counts_for_every_route_and_customer(autumn):
    """One namespace for the whole organization: a key used on a check is used up for a track."""
    await autumn.call("balances.check", headers={"idempotency-key": "k"}, customer_id="ann", feature_id="usage")
    assert (await autumn.call("balances.track", headers={"idempotency-key": "k"}, **USE)).status_code == 409


async def test_a_failed_request_frees_its_key(autumn):
    """A request that was refused did nothing, so its key works again."""
    headers = {"idempotency-key": "k"}
    assert (await autumn.call("balances.track", headers=headers, **{**USE, "feature_id": "no"})).status_code == 404
    assert (await autumn.call("balances.track", headers=headers, **USE)).status_code == 200
    too_much = {**USE, "value": 500, "overage_behavior": "reject", "idempotency_key": "b"}
    assert (await autumn.call("balances.track", **too_much)).status_code == 400
    assert (await autumn.call("balances.track", **{**USE, "idempotency_key": "b"})).status_code == 200


async def test_a_conflict_keeps_the_key(autumn):
    """A 409 for another reason does not free the key."""
    lock = {"enabled": True, "lock_id": "h"}
    body = {"customer_id": "ann", "feature_id": "usage", "lock": lock}
    await autumn.call("balances.check", **body)
    assert (await autumn.call("balances.check", headers={"idempotency-key": "k"}, **body)).json()["code"] == (
        "lock_already_exists"
    )
    assert (await autumn.call("balances.track", headers={"idempotency-key": "k"}, **USE)).json()["code"] == (
        "duplicate_idempotency_key"
    )


async def test_a_key_is_free_again_after_a_day(autumn, time):
    """Keys are remembered for 24 hours."""
    await autumn.call("balances.track", **USE, idempotency_key="k")
    time.now += 86_400_000
    assert (await autumn.call("balances.track", **USE, idempotency_key="k")).status_code == 200


async def test_what_a_refused_request_wrote_is_undone(autumn, emulator):
    """A batch that ends in an error leaves nothing behind: requests are whole or nothing."""
    body = [USE, {"customer_id": "ann"}]
    answer = await autumn.post("/v1/balances.batch_track", json=body)
    assert answer.status_code == 400
    assert await autumn.remaining() == 50
    assert EMULATOR_KEY not in answer.text


async def test_a_part_of_a_batch_that_fails_frees_its_key(autumn):
    """One track that cannot be done is left out; its key works afterwards, and the others are done."""
    refused = {**USE, "value": 500, "overage_behavior": "reject", "idempotency_key": "k"}
    await autumn.post("/v1/balances.batch_track", json=[USE, refused, {**USE, "idempotency_key": "other"}])
    assert await autumn.remaining() == 40
    await autumn.ok("balances.track", **{**USE, "idempotency_key": "k"})
