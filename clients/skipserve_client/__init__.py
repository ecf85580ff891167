"""The client of a skipserve server. Never imports torch."""

from skipserve_client.calls import ChatOptions
from skipserve_client.client import (
    AnswerStream,
    AsyncAnswerStream,
    AsyncSkipserveClient,
    SkipserveClient,
)
from skipserve_client.errors import (
    ApiError,
    ClientError,
    ConnectionFailedError,
    PictureError,
    ProtocolError,
    UnsendableError,
)
from skipserve_client.messages import ImageSource, Message, image_data_uri, question_messages
from skipserve_client.replies import (
    Answer,
    ModelInfo,
    PlainAnswer,
    PolicyInfo,
    PromptLogprob,
    SavedFor,
    SkipReport,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)

__all__ = [
    "Answer",
    "AnswerStream",
    "ApiError",
    "AsyncAnswerStream",
    "AsyncSkipserveClient",
    "ChatOptions",
    "ClientError",
    "ConnectionFailedError",
    "ImageSource",
    "Message",
    "ModelInfo",
    "PictureError",
    "PlainAnswer",
    "PolicyInfo",
    "PromptLogprob",
    "ProtocolError",
    "SavedFor",
    "SkipReport",
    "SkipserveClient",
    "Timings",
    "TokenLogprob",
    "TopLogprob",
    "UnsendableError",
    "Usage",
    "image_data_uri",
    "question_messages",
]
