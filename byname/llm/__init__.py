"""The client of OpenAI-compatible language models: requests, reply cache, reply parsing."""
