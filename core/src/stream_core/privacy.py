"""Classes of confidentiality: an institution lists its own, the least confidential first. Pure.

A place (a tier, a model, a judge's or a summarizer's language model) names the most confidential class that it may
see. A class that is not in the list, on either side, lets nothing pass: what nobody knows, nobody may see.
"""

from collections.abc import Sequence


def may_see(classes: Sequence[str], place: str, text: str) -> bool:
    """Tell whether a place of one class may see text of another.

    Args:
        classes: the policy's, the least confidential first.
        place: the most confidential class that the place may see.
        text: the text's.
    """
    return place in classes and text in classes and classes.index(place) >= classes.index(text)


def strictest(classes: Sequence[str], *names: str) -> str:
    """Give the most confidential of these classes: one that is not in the list, which nobody may see, before all."""
    return max(names, key=lambda name: classes.index(name) if name in classes else len(classes))
