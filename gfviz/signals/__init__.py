"""Floor 0: `TopKLogits`, the one signal that everything else consumes, and the ways to read it."""

from gfviz.signals.served import ServedSignal, read_served_logprobs
from gfviz.signals.sources import read_logits
from gfviz.signals.topk import NORMALIZATIONS, TopKLogits
from gfviz.signals.vocabulary import Vocabulary

__all__ = ["NORMALIZATIONS", "ServedSignal", "TopKLogits", "Vocabulary", "read_logits", "read_served_logprobs"]
