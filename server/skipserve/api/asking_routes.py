"""The routes that ask the model, or its tokenizer: each reads a form and writes another."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from skipserve.api.body import JsonRoute
from skipserve.api.errors import error_replies
from skipserve.api.exchange import TheExchange
from skipserve.api.forms.chat import ChatWriter, read_chat
from skipserve.api.forms.completions import (
    CompletionForm,
    CompletionReply,
    CompletionWriter,
    read_completion,
)
from skipserve.api.forms.errors import MessageErrorReply
from skipserve.api.forms.message_form import CountForm, MessageForm, read_count, read_message
from skipserve.api.forms.message_reply import MessageReply, MessageWriter, TokenCount
from skipserve.api.forms.response_form import ResponseForm, read_response
from skipserve.api.forms.response_reply import ResponseReply, ResponseWriter
from skipserve.api.forms.tokens import (
    DetokenizeForm,
    DetokenizeReply,
    TokenizeForm,
    TokenizeReply,
    read_tokenize,
)
from skipserve.api.paths import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    MESSAGES,
    RESPONSES,
    TOKENIZE,
)
from skipserve.api.serving import TheServing
from skipserve.api.visit import TheVisit
from skipserve.api.wire import ChatForm, ChatReply

router = APIRouter(responses=error_replies(401, 403, 405, 421), route_class=JsonRoute)


# A 200 may be a stream of events as well; one without a name is an event of the name "message".
_STREAMS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                }
            }
        }
    }
}
_ASKING = (400, 404, 408, 413, 415, 422, 429, 500, 503)
_RESPONSES = _STREAMS | error_replies(*_ASKING)
_COUNTING = error_replies(400, 404, 408, 413, 415, 429, 500, 503)
_MESSAGE_ERRORS = error_replies(401, 403, 405, 421, *_ASKING, model=MessageErrorReply)


@router.post(CHAT, response_model=ChatReply, responses=_RESPONSES)
async def chat_completions(form: ChatForm, visit: TheVisit) -> Response:
    """Answer a question about images, under the skip policy that the request names."""
    return await visit.answer(
        [read_chat(form, visit.policy_header)],
        wants_stream=bool(form.stream),
        make_writer=lambda accounts, created: ChatWriter.of(form, accounts[0], created),
    )


@router.post(COMPLETIONS, response_model=CompletionReply, responses=_RESPONSES)
async def completions(form: CompletionForm, visit: TheVisit) -> Response:
    """Go on with texts that go through no chat template, under the skip policy of the request."""
    questions = read_completion(form, visit.policy_header)
    text_of = visit.serving.processor.prompt_text
    tells_usage = bool(form.stream_options and form.stream_options.include_usage)
    return await visit.answer(
        questions,
        wants_stream=bool(form.stream),
        make_writer=lambda accounts, created: CompletionWriter(
            accounts,
            created,
            echoes=tuple(map(text_of, questions)) if form.echo else (),
            tells_usage=tells_usage,
            num_top=form.prompt_logprobs,
        ),
    )


@router.post(RESPONSES, response_model=ResponseReply, responses=_RESPONSES)
async def responses(form: ResponseForm, visit: TheVisit) -> Response:
    """Answer in OpenAI's newer form a question about images, under the request's skip policy."""
    return await visit.answer(
        [read_response(form, visit.policy_header)],
        wants_stream=bool(form.stream),
        make_writer=lambda accounts, created: ResponseWriter(accounts[0], created, form),
    )


@router.post(MESSAGES, response_model=MessageReply, responses=_STREAMS | _MESSAGE_ERRORS)
async def messages(form: MessageForm, visit: TheVisit) -> Response:
    """Answer in Anthropic's form a question about images, under the skip policy of the request."""
    return await visit.answer(
        [read_message(form, visit.policy_header)],
        wants_stream=bool(form.stream),
        make_writer=lambda accounts, _: MessageWriter(accounts[0]),
    )


@router.post(COUNT_TOKENS, responses=_MESSAGE_ERRORS)
async def count_tokens(form: CountForm, serving: TheServing, exchange: TheExchange) -> TokenCount:
    """Count the tokens of messages in Anthropic's form, each image with all its rows."""
    question = read_count(form)
    policy = serving.processor.counted_policy(form.model, exchange.client.rights)
    encoded = await asyncio.to_thread(serving.processor.encode, question, policy)
    return TokenCount(input_tokens=len(encoded.prompt_ids))


@router.post(TOKENIZE, responses=_COUNTING)
async def tokenize(form: TokenizeForm, serving: TheServing, exchange: TheExchange) -> TokenizeReply:
    """Return the tokens of a prompt, or of messages as the model would read them."""
    processor, question = serving.processor, read_tokenize(form)
    policy = processor.counted_policy(form.model, exchange.client.rights)
    encoded = await asyncio.to_thread(processor.encode, question, policy)
    name = processor.prompts.tokenizer.token_name
    return TokenizeReply(
        count=len(encoded.prompt_ids),
        max_model_len=processor.prompts.max_positions,
        tokens=encoded.prompt_ids,
        token_strs=tuple(map(name, encoded.prompt_ids)) if form.return_token_strs else None,
    )


@router.post(DETOKENIZE, responses=_COUNTING)
async def detokenize(
    form: DetokenizeForm, serving: TheServing, exchange: TheExchange
) -> DetokenizeReply:
    """Return the text of tokens."""
    processor = serving.processor
    processor.counted_policy(form.model, exchange.client.rights)
    return DetokenizeReply(prompt=processor.prompts.text_of(form.tokens))
