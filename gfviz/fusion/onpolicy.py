"""On-policy text: the prompts of a step in the pivot's own words, written when training comes to them.

The teachers then judge what the pivot would say (generalized knowledge distillation, arXiv 2306.13649, with all of its
data from the student), here greedy: a step's texts follow from its weights, so that a resumed run writes them again.
"""

from collections.abc import Sequence
from typing import Any

from gfviz.fusion.batch import TrainingExample
from gfviz.fusion.data import in_own_words
from gfviz.fusion.prepare import Prepared


class OwnAnswers:
    """Writes the texts of each step; an answer that is empty, or too long for a model, leaves the example as it was.

    Cost of a batch: a greedy answer to each prompt by the pivot, a tokenization by every model, and a forward pass of
    every teacher (texts that stay have one in a whole training on a CPU).
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def batch(self, model: Any, places: Sequence[int]) -> dict[str, Any]:
        """The collated batch of the examples at `places` of `prepared.train`, in the words of `model` as it is now."""
        return self.prepared.collator(self.rewrite(model, places))

    def rewrite(self, model: Any, places: Sequence[int]) -> list[TrainingExample]:
        """The training examples at `places` in the words of `model`, whose mode is restored."""
        from gfviz.fusion.evaluation import generate

        prepared, config = self.prepared, self.prepared.config
        texts = [prepared.texts[place] for place in places]
        training = model.training
        model.eval()
        try:
            written = generate(
                model, prepared.encoder, [text.prompt for text in texts], config.evaluation.batch_size,
                config.data.max_answer_tokens,
            )  # fmt: skip
        finally:
            model.train(training)
        answered = [row for row, answer in enumerate(written) if answer.strip()]
        fresh = prepared.encode([in_own_words(texts[row], written[row]) for row in answered])
        found = [prepared.train[place] for place in places]
        for row, example in zip(answered, fresh):
            found[row] = found[row] if example is None else example
        return found
