"""What the command line shows of a single pair: the prompt, and token by token what is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

SIDES = {"chosen": "green", "rejected": "red"}


def example(pair: Mapping[str, Any]) -> None:
    """Print a pair as the model meets it: the prompt dim, the trained-on tokens in the colour of their side.

    Every second token is underlined, so that their borders are seen. Without colours (no terminal, NO_COLOR) each
    token stands in brackets instead.
    """
    from equipoise.report.text import visible  # it brings scipy, which no other table of the console needs

    screen = Console(highlight=False, soft_wrap=True)
    coloured = screen.color_system is not None and not screen.no_color
    screen.print(Text(visible(_head(pair)), style="bold" if coloured else ""))
    screen.print(Text(visible(pair["prompt"]), style="dim" if coloured else ""))
    for side, colour in SIDES.items():
        text = Text(f"{side}: ")
        for place, token in enumerate(pair[side]):
            shown = visible(token).replace("\n", "↵\n")
            style = colour + " underline" * (place % 2)
            text.append(shown if coloured else f"[{shown}]", style=style if coloured else "")
        screen.print(text)
    screen.print()


def _head(pair: Mapping[str, Any]) -> str:
    """Where the pair belongs, how far apart its answers are, and what it lost."""
    from equipoise.report.words import source_name

    facts = [
        f"{key.replace('_', ' ')} {pair[key]:.3g}" for key in ("score_gap", "reward_gap") if pair.get(key) is not None
    ]
    if pair["prompt_cut"]:
        facts.append(f"{pair['prompt_cut']} tokens of the prompt cut")
    where = f"── {pair['stage']} / {source_name(pair['source'])} / {pair['id']}"
    return where + (f": {', '.join(facts)}" if facts else "")
