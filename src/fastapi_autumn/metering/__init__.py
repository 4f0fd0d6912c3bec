"""What a call used: read from the usage that providers report, or from what passed through. Pure."""

from fastapi_autumn.metering._meter import Meter, Reading
from fastapi_autumn.metering._usage import counts_of, response_id_of
from fastapi_autumn.pricing import Counts

__all__ = ["Counts", "Meter", "Reading", "counts_of", "response_id_of"]
