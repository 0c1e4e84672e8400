"""Whether texts fit the context of the model that reads or continues them: said before any of them is."""

from collections.abc import Sequence

from gfviz.errors import GfvizError
from gfviz.fusion.data import Example
from gfviz.fusion.tokenise import ExampleEncoder


def require_room(examples: Sequence[Example], encoder: ExampleEncoder, context: int | None, where: str) -> None:
    """Raise `GfvizError` where an example with its answer exceeds `context`; `where` begins the message.

    Beyond it models with learned positions fail, and others answer what they were never trained to. One tokenization.
    """
    if context is None:
        return
    over = sum(len(encoder.encode(example).ids) > context for example in examples)
    if over:
        raise GfvizError(
            f"{where}: {over} of {len(examples)} examples are longer than the model's context of {context} tokens: "
            "shorten them or leave them out"
        )


def require_room_to_answer(
    examples: Sequence[Example], encoder: ExampleEncoder, context: int | None, generated: int, where: str
) -> None:
    """Raise `GfvizError` where a prompt leaves fewer than `generated` tokens of `context`; as `require_room`."""
    if context is None or not examples:
        return
    lengths = [len(encoder.prompt_ids(example.prompt)) for example in examples]
    longest, full = max(lengths), sum(length + generated > context for length in lengths)
    if full:
        raise GfvizError(
            f"{where}: {full} of {len(examples)} prompts (the longest has {longest} tokens) leave no room for "
            f"{generated} new tokens in the model's context of {context}: "
            + (f"allow at most {context - longest}" if longest < context else "shorten them or leave them out")
        )
