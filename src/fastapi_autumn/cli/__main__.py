"""`python -m fastapi_autumn.cli`, for where the command `autumn` is not on the path."""

from fastapi_autumn.cli import main

main()
