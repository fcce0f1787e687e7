"""People who ask without pause, while pods come and go."""

import asyncio
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

_QUESTION = "Say something about relays, please."


@dataclass
class Load:
    """What came of all requests.

    Args:
        url: of the gateway's Service.
        key: an API key.
        authority: PEM file of who signed the gateway's certificate.
    """

    url: str
    key: str
    authority: Path
    answers: Counter[str] = field(default_factory=Counter)
    """By tier that answered."""
    failures: list[str] = field(default_factory=list)

    def session(self) -> aiohttp.ClientSession:
        """As an ingress controller calls it: verified TLS, a new connection for each request."""
        context = ssl.create_default_context(cafile=self.authority)
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        headers = {"authorization": f"Bearer {self.key}"}
        return aiohttp.ClientSession(connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=120))

    async def ask(self, session: aiohttp.ClientSession, model: str, *, tokens: int = 24) -> str:
        """Ask once, as a stream, and read it to its end.

        Returns:
            What was wrong; empty when all was right.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": _QUESTION}],
            "max_tokens": tokens,
            "stream": True,
        }
        text, done = "", False
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                if answer.status != 200:
                    return f"{model}: {answer.status} {await answer.text()}"
                async for line in answer.content:
                    data = line.removeprefix(b"data: ").strip()
                    if data == b"[DONE]":
                        done = True
                    elif data.startswith(b"{"):
                        chunk = json.loads(data)
                        if "error" in chunk:
                            return f"{model}: {chunk['error']}"
                        text += "".join(each["delta"].get("content") or "" for each in chunk["choices"])
                if not (done and text):
                    return f"{model}: ended after {text!r}"
                self.answers[answer.headers["x-stream-tier"]] += 1
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"{model}: {type(error).__name__} {error}"
        return ""

    @contextlib.asynccontextmanager
    async def running(self, models: tuple[str, ...]) -> AsyncIterator[None]:
        """Keep one person per model asking until the block ends; the last answers are waited for."""
        over = asyncio.Event()

        async def person(model: str) -> None:
            async with self.session() as session:
                while not over.is_set():
                    if wrong := await self.ask(session, model):
                        self.failures.append(wrong)

        async with asyncio.TaskGroup() as tasks:
            for model in models:
                tasks.create_task(person(model))
            try:
                yield
            finally:
                over.set()
