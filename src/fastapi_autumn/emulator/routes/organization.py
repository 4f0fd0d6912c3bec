"""The organization behind a key, what it has none of, and what the emulator leaves out on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._keys import PUBLISHABLE_KEY

_NAME = "emulator"

_LEFT_OUT = {
    "invoices": ("invoices.insert", "invoices.list", "invoices.create", "invoices.update", "invoices.finalize",
                 "invoices.pay", "invoices.void", "invoices.reissue", "invoices.issue_credit_note",
                 "invoices.listTemplates"),
    "licences": ("licenses.attach", "licenses.release", "licenses.list", "licenses.list_assignments"),
    "referrals and rewards": (
        "referrals.create_code", "referrals.redeem_code", "referral_programs.create", "referral_programs.get",
        "referral_programs.update", "referral_programs.delete", "rewards.create", "rewards.get", "rewards.update",
        "rewards.delete", "rewards.redeem",
    ),
    "schedules": ("billing.create_schedule",),
    "what depends on proration, and updates of several plans at once": (
        "billing.preview_update", "billing.multi_update", "billing.preview_multi_update",
    ),
    "imports from Stripe": ("billing.import",),
    "the platform": (
        "platform.link_revenuecat", "platform.sync_revenuecat", "platform.get_revenuecat_keys",
        "platform.get_stripe_connection", "platform.disconnect_stripe",
    ),
    "webhooks": ("webhooks.create", "webhooks.get", "webhooks.list", "webhooks.update", "webhooks.delete",
                 "webhooks.sync", "webhooks.preview_sync"),
    "what came after API 2.3.0": ("balances.list", "billing.verify", "customers.advance_test_clock", "logs.search",
                                  "purchases.list", "subscriptions.list"),
    "sandboxes": ("sandboxes.create", "sandboxes.delete", "sandboxes.list", "sandboxes.reset"),
    "customer tokens": ("keys.mint", "keys.refresh", "keys.revoke"),
}  # fmt: skip


def me(call: Call) -> Any:
    """Name the organization, as `atmn env` shows it."""
    return {"id": f"org_{_NAME}", "name": "Emulator", "slug": _NAME, "env": call.env}


def organization(call: Call) -> Any:
    """Describe the organization and its settings."""
    return {
        "id": f"org_{_NAME}",
        "name": "Emulator",
        "logo": None,
        "slug": _NAME,
        "master": None,
        "success_url": "https://useautumn.com",
        "default_currency": "usd",
        "stripe_connection": "default",
        "stripe_secret_key_connected": False,
        "stripe_oauth_connected": False,
        "through_master": False,
        "processor_configs": {"vercel": {"connected": False}, "revenuecat": {"connected": False}},
        "created_at": call.now,
        "test_pkey": PUBLISHABLE_KEY,
        "live_pkey": PUBLISHABLE_KEY.replace("_test_", "_live_"),
        "onboarded": True,
        "deployed": False,
        "config": {
            "usage_alerts": [],
            "sandbox_usage_alerts": [],
            **dict.fromkeys(_ON, True),
            **dict.fromkeys(_OFF, False),
        },
        "idempotency_config": None,
        "custom_buttons": [],
        "redis_config": None,
    }


_ON = (
    "bill_upgrade_immediately", "convert_to_charge_automatically", "prorate_unused", "checkout_on_failed_payment",
    "include_past_due", "sync_status", "merge_billing_cycles",
)  # fmt: skip
_OFF = (
    "anchor_start_of_month", "cancel_on_past_due", "reverse_deduction_order", "multiple_trials", "allow_paid_default",
    "cache_customer", "invoice_memos", "entity_product", "void_invoices_on_subscription_deletion",
    "default_applies_to_entities", "disable_overage_billing", "disable_stripe_writes", "disabled_auto_topup",
    "persist_free_overage", "dryrun_autotopups", "forward_customer_metadata", "automatic_tax", "multi_currency",
)  # fmt: skip


def rewards(_: Call) -> Any:
    """List rewards: there are none here."""
    return {"coupons": [], "feature_grants": []}


def referral_programs(_: Call) -> Any:
    """List referral programs: there are none here."""
    return {"list": []}


def _left_out(name: str, subject: str) -> Callable[[Call], Any]:
    def refuse(_: Call) -> Any:
        raise ApiError(501, "not_implemented", f"{name} is not part of the emulator, which leaves out {subject}")

    return refuse


ROUTES = {
    ("GET", "/v1/organization/me"): Operation("organization.me", me, writes=False),
    ("GET", "/v1/organization"): Operation("organization.get", organization, writes=False),
    ("POST", "/v1/rewards.list"): Operation("rewards.list", rewards, writes=False),
    ("POST", "/v1/referral_programs.list"): Operation("referral_programs.list", referral_programs, writes=False),
} | {
    ("POST", f"/v1/{name}"): Operation(name, _left_out(name, subject), writes=False)
    for subject, names in _LEFT_OUT.items()
    for name in names
}
