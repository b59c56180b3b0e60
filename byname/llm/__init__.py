"""The client of OpenAI-compatible language models: requests, replies that are kept, batch files."""

from byname.llm.address import LLMError
from byname.llm.batch import BatchFiles, BatchReplies, read_batch, write_batch
from byname.llm.client import LLM, Plan
from byname.llm.replies import ReplyCache
from byname.llm.run import Answers

__all__ = [
    "LLM",
    "Answers",
    "BatchFiles",
    "BatchReplies",
    "LLMError",
    "Plan",
    "ReplyCache",
    "read_batch",
    "write_batch",
]
