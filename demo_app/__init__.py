"""A small metered AI service, built the way users of fastapi-autumn build theirs.

`users` says who is calling, `chat` is the metered route, `providers` is the model behind it, `page` is a page to try it
all on, and `app` puts them together. `autumn_config.py` has the plans and `prices.toml` what a call costs.
"""
