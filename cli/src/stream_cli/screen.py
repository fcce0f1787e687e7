"""The one screen of `stream up`: where to send questions, who answers them, two calls to paste."""

import importlib.util
import json
import shlex
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

from stream_cli.up import Result
from stream_core.deployment import TierConfig

NOT_TO_BE_BELIEVED: Final = "demo model: answers are not to be believed"
_QUESTION: Final = "What is a token?"
_MODELS_SHOWN: Final = 3


def python_that_has_openai() -> str:
    """Name the Python for the pasted line: ours when it has the openai package."""
    return sys.executable if importlib.util.find_spec("openai") else "python3"


def curl_line(base_url: str, key_file: str) -> str:
    """Write a call for a POSIX shell; the key stays out of the shell's history."""
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": _QUESTION}]}, separators=(",", ":"))
    return (
        f"curl -s {base_url}/chat/completions \\\n"
        f'  -H "Authorization: Bearer $(cat {shlex.quote(key_file)})" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def python_line(base_url: str, key_file: str, python: str) -> str:
    """Write the same call with the official client."""
    code = "\n".join(
        [
            "",
            "from openai import OpenAI",
            f"key = open({json.dumps(key_file, ensure_ascii=False)}).read().strip()",
            f'client = OpenAI(base_url="{base_url}", api_key=key)',
            'answer = client.chat.completions.create(model="auto",',
            f'    messages=[{{"role": "user", "content": "{_QUESTION}"}}])',
            "print(answer.choices[0].message.content)",
        ]
    )
    return f"{shlex.quote(python)} -c {shlex.quote(code)}"


def tier_words(tier: TierConfig, result: Result) -> tuple[str, str]:
    """Say (models, where it runs) of a tier."""
    names = [model.id for model in tier.models]
    if tier.kind == "hpc":
        pools = [pool for cluster in result.deployment.clusters if cluster.tier == tier.name for pool in cluster.pools]
        names += [pool.model.id for pool in pools]
        where = "worker on this machine, standing for a cluster" if pools else "no workers yet"
    else:
        where = result.local if tier.name == "local" and result.local else tier.base_url
    more = len(names) - _MODELS_SHOWN
    return ", ".join(names[:_MODELS_SHOWN]) + (f" and {more} more" if more > 0 else ""), where


def is_demo(tier: TierConfig, result: Result) -> bool:
    """Tell whether a demo model answers in a tier."""
    pools = [pool for cluster in result.deployment.clusters if cluster.tier == tier.name for pool in cluster.pools]
    return any(model.demo for model in [*tier.models, *(pool.model for pool in pools)])


def show(console: Console, result: Result) -> None:
    """Print the screen. Lines to paste are never wrapped."""

    def heading(text: str) -> None:
        console.print(Text(text, style="bold"), soft_wrap=True)

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    heading("STREAM is ready")
    if result.base_url:
        line(f"  Base URL  {result.base_url}")
        line(f"  API key   {result.key}")
    else:
        line(f"  Started   {', '.join(result.started) or 'nothing'}")
    if result.exposed:
        line("  Other machines can reach it, and it speaks plain HTTP: keys and questions can be", "bold yellow")
        line("  read on the way. Put a proxy with TLS before it, or leave out --host.", "bold yellow")
    line("")
    heading('Tiers, cheapest first ("auto" chooses among them)')
    for tier in result.deployment.tiers:
        if not tier.enabled:
            line(f"  {tier.name:<8}off")
            continue
        models, where = tier_words(tier, result)
        line(f"  {tier.name:<8}{models or 'models as its workers announce them'}")
        line(f"          {where}; sees up to: {tier.privacy}", "dim")
        if is_demo(tier, result):
            line(f"          {NOT_TO_BE_BELIEVED}", "bold yellow")
    if result.cloud_variable:
        line(f"  cloud   off: nothing is sent there. {result.cloud_variable} is set;")
        line("          `stream up --cloud` turns this tier on, at that key's expense")
    if result.base_url:
        key_file = str(result.home.api_key)
        line("")
        heading("Ask it, in another terminal")
        line(curl_line(result.base_url, key_file))
        line("")
        line(python_line(result.base_url, key_file, python_that_has_openai()))
    line("")
    line(f"Logs: {result.home.logs}   Stop: Ctrl-C")
