"""The `openai` agent: any endpoint that speaks OpenAI's chat completions, streamed.

Set `OPENAI_API_KEY`, or `OPENAI_BASE_URL` for an endpoint that wants no key, and `OPENAI_MODEL`;
`OPENAI_SYSTEM_PROMPT` is optional. The message's `context.model` chooses another model. Without key
and URL the agent is not registered.
"""

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from execution import Event, Failed, Output, Result, Retryable, Task, Usage, Worker

MAX_TURNS = 40
MAX_MODEL_NAME = 200


class OpenAIAgent:
    """Sends the session's last turns and the message; streams what the model answers."""

    def __init__(
        self, client: openai.AsyncOpenAI, *, model: str | None, system_prompt: str | None = None
    ) -> None:
        self._client = client
        self._model = model
        self._system_prompt = system_prompt

    async def __call__(self, task: Task) -> AsyncIterator[Output]:
        model = self._model_for(task)
        messages = await self._messages(task)
        usage, finished, answered_by = None, None, model
        try:
            stream = await self._client.chat.completions.create(
                model=model,
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            )
            async with stream:  # leaving it, cancelled or not, closes the HTTP response
                async for chunk in stream:
                    answered_by = chunk.model or answered_by
                    usage = _usage_of(chunk) or usage
                    finished = _finish_of(chunk) or finished
                    for output in _outputs_of(chunk):
                        yield output
        except (openai.APIError, httpx2.HTTPError) as error:
            raise _meaning_of(error) from error
        if finished is None:
            raise Retryable("the model's answer broke off", type="provider_unavailable")
        if finished == "content_filter":
            raise Failed("the provider's content filter stopped the answer", type="content_filter")
        yield Result(usage=usage, agent_info={"model": answered_by, "finish_reason": finished})

    def _model_for(self, task: Task) -> str:
        model = task.context.get("model", self._model)
        if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_NAME:
            text = "no model: set OPENAI_MODEL, or send context.model as a string"
            raise Failed(text, type="invalid_model")
        return model

    async def _messages(self, task: Task) -> Any:
        turns = await task.history(limit=MAX_TURNS)
        system = [{"role": "system", "content": self._system_prompt}] if self._system_prompt else []
        earlier = [{"role": turn.role, "content": turn.content} for turn in turns]
        return [*system, *earlier, {"role": "user", "content": task.message}]


def _outputs_of(chunk: ChatCompletionChunk) -> list[Output]:
    outputs: list[Output] = []
    for choice in chunk.choices[:1]:
        # Several endpoints tell a model's reasoning beside its answer, under either name.
        extra = choice.delta.model_extra or {}
        reasoning = extra.get("reasoning_content") or extra.get("reasoning")
        if isinstance(reasoning, str):
            outputs.append(Event("reasoning", text=reasoning))
        if choice.delta.content:
            outputs.append(choice.delta.content)
    return outputs


def _finish_of(chunk: ChatCompletionChunk) -> str | None:
    return chunk.choices[0].finish_reason if chunk.choices else None


def _usage_of(chunk: ChatCompletionChunk) -> Usage | None:
    if chunk.usage is None:
        return None
    return Usage(
        input_tokens=chunk.usage.prompt_tokens, output_tokens=chunk.usage.completion_tokens
    )


def _meaning_of(error: openai.APIError | httpx2.HTTPError) -> Failed:
    """Limits, the provider's own errors and the network pass; what it calls our fault does not."""
    if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
        text = f"the provider could not be reached: {type(error).__name__}: {error}"
        return Retryable(text, type="provider_unavailable")
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    if error.code == "insufficient_quota":
        return Failed(error.message, type="provider_quota")
    if status == 429:
        return Retryable(error.message, type="provider_rate_limit")
    # An error in the middle of a stream has no status of its own.
    if status is None or status >= 500 or status in {408, 409}:
        return Retryable(error.message, type="provider_unavailable")
    return Failed(error.message, type="provider_refused")


def configured(environ: Mapping[str, str]) -> Worker:
    """A worker with the agent `openai`, if the environment says where it is; else one without."""
    found = Worker()
    key, url = environ.get("OPENAI_API_KEY"), environ.get("OPENAI_BASE_URL")
    if key or url:
        client = openai.AsyncOpenAI(api_key=key or "none", base_url=url or None)
        agent = OpenAIAgent(
            client,
            model=environ.get("OPENAI_MODEL"),
            system_prompt=environ.get("OPENAI_SYSTEM_PROMPT"),
        )
        found.agent("openai")(agent)
    return found


worker = configured(os.environ)
