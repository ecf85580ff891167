"""The routes that ask the model, or its tokenizer: each reads a form and writes another."""

import asyncio

from fastapi import APIRouter, Response

from skipserve.api.body import JsonRoute
from skipserve.api.chat import ChatWriter, read_chat
from skipserve.api.errors import error_replies
from skipserve.api.forms.completions import (
    CompletionForm,
    CompletionReply,
    CompletionWriter,
    read_completion,
)
from skipserve.api.forms.tokens import (
    DetokenizeForm,
    DetokenizeReply,
    TokenizeForm,
    TokenizeReply,
    read_tokenize,
)
from skipserve.api.paths import CHAT, COMPLETIONS, DETOKENIZE, TOKENIZE
from skipserve.api.serving import TheServing
from skipserve.api.visit import TheVisit
from skipserve.api.wire import ChatForm, ChatReply

router = APIRouter(route_class=JsonRoute)
_RESPONSES = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    **error_replies(400, 404, 408, 413, 415, 422, 500, 503),
}
_COUNTING = error_replies(400, 404, 408, 413, 415, 500, 503)


@router.post(CHAT, response_model=ChatReply, responses=_RESPONSES)
async def chat_completions(form: ChatForm, visit: TheVisit) -> Response:
    """Answer a question about images, under the skip policy that the request names."""
    tells_usage = bool(form.stream_options and form.stream_options.include_usage)
    return await visit.answer(
        [read_chat(form, visit.policy_header)],
        wants_stream=bool(form.stream),
        make_writer=lambda accounts, created: ChatWriter(accounts[0], created, tells_usage),
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
        ),
    )


@router.post(TOKENIZE, responses=_COUNTING)
async def tokenize(form: TokenizeForm, serving: TheServing) -> TokenizeReply:
    """Return the tokens of a prompt, or of messages as the model would read them."""
    processor, question = serving.processor, read_tokenize(form)
    policy = processor.choose_policy(None, form.model)
    encoded = await asyncio.to_thread(processor.encode, question, policy)
    name = processor.prompts.tokenizer.token_name
    return TokenizeReply(
        count=len(encoded.prompt_ids),
        max_model_len=processor.prompts.max_positions,
        tokens=encoded.prompt_ids,
        token_strs=tuple(map(name, encoded.prompt_ids)) if form.return_token_strs else None,
    )


@router.post(DETOKENIZE, responses=_COUNTING)
async def detokenize(form: DetokenizeForm, serving: TheServing) -> DetokenizeReply:
    """Return the text of tokens."""
    processor = serving.processor
    processor.choose_policy(None, form.model)
    return DetokenizeReply(prompt=processor.prompts.text_of(form.tokens))
