"""The paths of the routes that take a body, and what each is for. Knows no form."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
POLICIES = "/v1/skip_policies"
RESOLVE = "/v1/skip_policies/resolve"

# Those that ask the model, each with the operation's name in traces.
OPERATIONS = {
    CHAT: "chat",
    COMPLETIONS: "text_completion",
    RESPONSES: "chat",
    MESSAGES: "chat",
}
WITH_BODY = frozenset({*OPERATIONS, COUNT_TOKENS, TOKENIZE, DETOKENIZE, POLICIES, RESOLVE})
