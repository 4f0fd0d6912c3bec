"""The catalog as it is in the file."""

from __future__ import annotations

import json

from fastapi_autumn.emulator.books._catalog import Catalog
from fastapi_autumn.emulator.http._store import Store


def load_catalog(store: Store) -> Catalog:
    """Read all features and plans."""
    features = (json.loads(doc) for (doc,) in store.rows("SELECT doc FROM features ORDER BY seq"))
    plans = (json.loads(doc) for (doc,) in store.rows("SELECT doc FROM plans ORDER BY seq"))
    return Catalog(features, plans, store.new_id)
