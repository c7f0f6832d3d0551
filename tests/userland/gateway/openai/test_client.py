"""The real `openai` client against the gateway: sync and async, streams, tools, structured output, files, tuning."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from gateway_server import GatewayServer

MESSAGES = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"null", "other", "org/third", "tiny"} <= set(names)
    assert client.models.retrieve("org/third").owned_by == "org"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("nothing")
    assert raised.value.code == "model_not_found" and raised.value.param == "model"


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="null", messages=MESSAGES, n=2, logprobs=True, top_logprobs=1)
    assert [choice.message.content for choice in answer.choices] == ["hello there"] * 2
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 24
    first = answer.choices[1].logprobs.content[0]
    assert (first.token, first.logprob, first.bytes, first.top_logprobs[0].token) == ("h", 0.0, [104], "h")
    short = client.chat.completions.create(model="null", messages=MESSAGES, max_completion_tokens=3, stop=["zz"])
    assert short.choices[0].message.content == "hel" and short.choices[0].finish_reason == "length"
    assert (
        client.chat.completions.create(model="null", messages=MESSAGES, stop="th").choices[0].message.content
        == "hello "
    )


def test_chat_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="null", messages=MESSAGES, stream=True, n=2, stream_options={"include_usage": True}
    )
    texts, ends, usage = ["", ""], [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
    assert texts == ["hello there"] * 2 and ends == ["stop", "stop"] and usage.prompt_tokens == 11


def test_a_stream_has_logprobs_too(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="null", messages=MESSAGES, stream=True, logprobs=True)
    tokens = [
        each.token
        for chunk in stream
        for choice in chunk.choices
        if choice.logprobs
        for each in choice.logprobs.content
    ]
    assert "".join(tokens) == "hello there"


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="null", prompt=["ab", "cd"], echo=True)
    assert [choice.text for choice in answer.choices] == ["abab", "cdcd"]
    stream = client.completions.create(model="null", prompt=[104, 105], stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "hi"


def test_tools_that_the_model_calls_by_itself(client: openai.OpenAI) -> None:
    said = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    asked = {"model": "null", "messages": [{"role": "user", "content": said}], "tools": [WEATHER]}
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    (call,) = answer.message.tool_calls
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Rome"}
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.tool_calls[0].function.name == "weather"
    plain = client.chat.completions.create(**{**asked, "messages": MESSAGES})
    assert plain.choices[0].message.content == "hello there" and plain.choices[0].message.tool_calls is None


def test_what_the_device_cannot_enforce_is_said(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="null", messages=MESSAGES, tools=[WEATHER], tool_choice="required")
    assert raised.value.status_code in (400, 501)


def test_responses(client: openai.OpenAI) -> None:
    first = client.responses.create(model="null", input="one two")
    assert first.output_text == "one two" and first.status == "completed" and first.usage.input_tokens == 7
    assert client.responses.retrieve(first.id).output_text == "one two"
    second = client.responses.create(
        model="null", input="three", previous_response_id=first.id, instructions="Be brief"
    )
    assert second.output_text == "three" and second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="null", input="x", previous_response_id=first.id)
    with pytest.raises(openai.APIStatusError) as raised:
        client.responses.create(model="null", input="x", tools=[{"type": "web_search"}])
    assert raised.value.status_code == 501


def test_responses_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="null", input="one two") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "one two"
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 7 and "response.output_item.done" in kinds


def test_responses_call_functions(client: openai.OpenAI) -> None:
    said = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    tool = {"type": "function", **WEATHER["function"]}
    answer = client.responses.create(model="null", input=said, tools=[tool])
    assert answer.output[0].type == "function_call" and json.loads(answer.output[0].arguments) == {"city": "Oslo"}
    with client.responses.stream(model="null", input=said, tools=[tool]) as stream:
        stream.until_done()
        assert stream.get_final_response().output[0].name == "weather"


def test_embeddings(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="null", input=["one", "two"])
    plain = client.embeddings.create(model="null", input="one", encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding) and len(packed.data) == 2
    short = client.embeddings.create(model="null", input="one", dimensions=8).data[0].embedding
    assert len(short) == 8 and sum(value * value for value in short) == pytest.approx(1.0)
    assert packed.usage.prompt_tokens == 6


def test_files_and_tuning(client: openai.OpenAI) -> None:
    kept = client.files.create(file=("my data.jsonl", b'{"text": "fox"}\n'), purpose="fine-tune")
    assert kept.bytes == 16 and kept.filename == "my data.jsonl"
    assert [file.id for file in client.files.list()] == [kept.id] and client.files.retrieve(kept.id) == kept
    assert client.files.content(kept.id).read() == b'{"text": "fox"}\n'
    assert list(client.fine_tuning.jobs.list()) == []
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.list_events("ftjob-none")
    client.files.delete(kept.id)
    assert list(client.files.list()) == []
    with pytest.raises(openai.NotFoundError):
        client.files.content(kept.id)


def test_a_job_is_made_followed_paused_and_done(client: openai.OpenAI, folder: Path) -> None:
    data = client.files.create(file=("data.jsonl", b'{"text": "fox"}\n' * 40), purpose="fine-tune")
    hold = {"hold": [2, str(folder / "go")]}
    jobs = client.fine_tuning.jobs
    job = jobs.create(
        model="null", training_file=data.id, suffix="mine", seed=5,
        method={"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 4, "n_epochs": "auto"}}},
        extra_body={"hyperparameters": {"options": hold}},
    )  # fmt: skip
    assert (job.status, job.fine_tuned_model, job.seed) == ("running", None, 5)
    assert jobs.pause(job.id).status == "paused" and jobs.resume(job.id).status == "running"
    assert [each.id for each in jobs.list()] == [job.id]
    (folder / "go").touch()
    while (job := jobs.retrieve(job.id)).status == "running":
        pass
    assert (job.status, job.fine_tuned_model) == ("succeeded", "null-mine")
    assert job.finished_at is not None and job.trained_tokens and job.error is None
    assert any("null-mine@1" in event.message for event in jobs.list_events(job.id))
    assert list(jobs.checkpoints.list(job.id)) == []
    failing = jobs.create(
        model="null", training_file=data.id, suffix="other", extra_body={"hyperparameters": {"options": {"fail": 1}}}
    )
    while (failing := jobs.retrieve(failing.id)).status == "running":
        pass
    assert failing.status == "failed" and failing.error is not None and "on order" in failing.error.message
    with pytest.raises(openai.BadRequestError):
        jobs.create(model="null", training_file=data.id, extra_body={"hyperparameters": {"method": "magic"}})
    held = jobs.create(model="null", training_file=data.id, extra_body={"hyperparameters": {"options": {
        "hold": [1, str(folder / "never")]
    }}})  # fmt: skip
    assert jobs.cancel(held.id).status == "cancelled"


def test_errors_have_their_class(client: openai.OpenAI, gateway: GatewayServer) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="null", messages=[{"role": "user", "content": "x" * 3000}])
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="no/such", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="llmos_wrong").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=gateway.key("read")).chat.completions.create(model="null", messages=MESSAGES)
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model="null", messages=[{"role": "user", "content": "!oom; x"}])
    assert raised.value.status_code == 507


def test_the_async_client(gateway: GatewayServer) -> None:
    async def all_of_it() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(model="null", messages=MESSAGES) for _ in range(8))
            )
            assert {answer.choices[0].message.content for answer in answers} == {"hello there"}
            stream = await client.chat.completions.create(model="null", messages=MESSAGES, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert text == "hello there"

    asyncio.run(all_of_it())
