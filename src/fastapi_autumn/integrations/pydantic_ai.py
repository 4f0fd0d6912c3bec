"""PydanticAI: each request of an agent to its model is a step of a budget."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_core import to_json

from fastapi_autumn.charge import Budget, Part
from fastapi_autumn.pricing import CallRequest

__all__ = ["BudgetModel"]


class BudgetModel(WrapperModel):
    """A model whose requests are taken from a budget before they are made, and cost what they used.

        async with autumn.budget(customer, credits=50) as budget:
            await agent.run(question, model=BudgetModel("openai:gpt-4o", budget))

    A request that does not fit raises `BudgetExceeded` out of the run, and is not made. Where the price is a rate,
    `max_tokens` in the model's settings bounds what an answer can cost.

    Args:
        wrapped: A model of PydanticAI's, or the name of one.
        budget: A budget, or a part of one for an agent that another one calls.
        model: The name in the price list; default: that of the model.
    """

    def __init__(self, wrapped: Model | str, budget: Budget | Part, *, model: str | None = None) -> None:
        super().__init__(wrapped)
        self._budget = budget
        self._priced = model or self.wrapped.model_name

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """See `Model.request`."""
        asked = _asked(messages, model_settings, model_request_parameters)
        async with self._budget.step(self._priced, request=asked) as step:
            response = await super().request(messages, model_settings, model_request_parameters)
            step.used(response.usage, response_id=response.provider_response_id)
            return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """See `Model.request_stream`. A stream that is left costs what had come, a whole one what its usage says."""
        asked = _asked(messages, model_settings, model_request_parameters)
        async with (
            self._budget.step(self._priced, request=asked) as step,
            super().request_stream(messages, model_settings, model_request_parameters, run_context) as stream,
        ):
            try:
                yield stream
            finally:
                response = stream.get()
                if response.usage.has_values():
                    step.used(response.usage, response_id=response.provider_response_id)


def _asked(
    messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
) -> CallRequest:
    """Say what a request can use at most. What goes to the model is not longer than what PydanticAI makes it of."""
    size = len(ModelMessagesTypeAdapter.dump_json(messages)) + len(to_json(parameters, fallback=str))
    limit = (settings or {}).get("max_tokens")
    return CallRequest({} if limit is None else {"max_tokens": limit}, size)
