"""Options of ``byname prompts make``: whom to ask, and where queries and replies lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Concurrency",
    "Emit",
    "EmitBatch",
    "Fresh",
    "IngestBatch",
    "LLMKeyEnv",
    "LLMMode",
    "LLMModel",
    "LLMSchema",
    "LLMUrl",
    "MaxCalls",
    "ModelName",
    "Replies",
    "Timeout",
]

_LLM = "LLM: any OpenAI-compatible server (the key: BYNAME_LLM_KEY)"
_FILES = "Without a server: queries and replies as files"

LLMUrl = Annotated[
    str | None,
    typer.Option(help="The server: http://localhost:11434/v1.", rich_help_panel=_LLM),
]
LLMModel = Annotated[
    str | None,
    typer.Option(help="Its model; needed where it has several.", rich_help_panel=_LLM),
]
LLMMode = Annotated[
    str, typer.Option(help="chat, or completion for base models.", rich_help_panel=_LLM)
]
LLMSchema = Annotated[
    str,
    typer.Option(help="Hold lists to a JSON schema: auto, on or off.", rich_help_panel=_LLM),
]
LLMKeyEnv = Annotated[
    str | None, typer.Option(help="Another variable that holds the key.", rich_help_panel=_LLM)
]
Concurrency = Annotated[
    int, typer.Option(help="Requests at a time.", min=1, max=1000, rich_help_panel=_LLM)
]
Timeout = Annotated[
    float, typer.Option(help="Seconds for one request.", min=0.1, rich_help_panel=_LLM)
]
MaxCalls = Annotated[
    int, typer.Option(help="Never make more calls than these.", min=0, rich_help_panel=_LLM)
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Ask again, whatever the cache has.", rich_help_panel=_LLM)
]
Emit = Annotated[
    Path | None, typer.Option(help="Write the queries: a .jsonl file.", rich_help_panel=_FILES)
]
Replies = Annotated[
    list[Path] | None,
    typer.Option(help="Answers to the queries: lines with id and reply.", rich_help_panel=_FILES),
]
EmitBatch = Annotated[
    Path | None,
    typer.Option(help="Write requests in OpenAI's batch format.", rich_help_panel=_FILES),
]
IngestBatch = Annotated[
    list[Path] | None,
    typer.Option(help="What such a batch came back as.", rich_help_panel=_FILES),
]
ModelName = Annotated[
    str, typer.Option("--model", help="Who answered, for the record.", rich_help_panel=_FILES)
]
