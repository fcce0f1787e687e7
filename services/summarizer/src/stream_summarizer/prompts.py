"""What a model is asked when it condenses: the text of `prompts/condense.txt` with the numbers filled in."""

import functools
import importlib.resources
from typing import Final

_WORDS_PER_TOKEN: Final = 0.6
"""Below the usual 0.75: models overrun what they are told."""
BEGIN: Final = "<conversation>"
END: Final = "</conversation>"


@functools.cache
def _instruction() -> str:
    return importlib.resources.files(__package__).joinpath("prompts/condense.txt").read_text(encoding="utf-8")


def condense(transcript: str, max_tokens: int) -> list[dict[str, str]]:
    """Build the messages of the request to the model.

    Args:
        transcript: what is to be condensed, a line a message.
        max_tokens: of the summary.
    """
    instruction = _instruction().replace("{words}", str(max(int(max_tokens * _WORDS_PER_TOKEN), 1)))
    # A transcript can't close its own frame: what looks like the end mark is broken up.
    framed = f"{BEGIN}\n{transcript.replace(END, '< /conversation>')}\n{END}"
    return [{"role": "system", "content": instruction}, {"role": "user", "content": framed}]
