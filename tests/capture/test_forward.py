"""The head applied to chosen positions alone: against the model's own logits, and not where it is no plain map."""

import pytest
import torch
import transformers

from gfviz.capture.forward import SignalReader

SIZES = {
    "vocab_size": 90,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}
PLAIN = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=90, n_embd=16, n_layer=1, n_head=2, n_positions=32),
    "phi": lambda: transformers.PhiConfig(**SIZES),  # its head has a bias
}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
OTHER = {
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, head_dim=8),  # caps its logits
    "cohere": lambda: transformers.CohereConfig(**SIZES),  # scales its logits
}


def make(config, boost=6.0):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(boost)
    return model


def batch(rows=3, width=7):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 90, (rows, width), generator=generator)
    attention = torch.ones_like(ids)
    attention[1, 5:] = 0
    return ids, attention, (torch.rand(rows, width, generator=generator) < 0.5) & (attention == 1)


def truth(model, ids, attention, chosen, k):
    """The model's own logits in float64, sorted whole."""
    positions = (attention.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention, position_ids=positions).logits[chosen].double()
    return logits.sort(-1, descending=True).values[:, :k], torch.logsumexp(logits, -1)


def assert_right(found, model, inputs, k):
    values, total = truth(model, *inputs, k)
    torch.testing.assert_close(found.values.double(), values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logsumexp.double(), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_plain_heads_see_the_chosen_positions_alone(kind):
    model, inputs = make(PLAIN[kind]()), batch()
    if kind == "phi":
        model.get_output_embeddings().bias.data.normal_()
    reader = SignalReader(model, 5)
    widths = []
    watch = model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: widths.append(out.shape[:-1]))
    found = reader.read(*inputs)
    watch.remove()
    assert reader.fused
    assert set(widths) == {(1, 1)}
    assert_right(found, model, inputs, 5)
    assert found.vocab_size == 90
    logits = model(input_ids=inputs[0]).logits
    assert logits.shape == (3, 7, 90)  # nothing of the reader stays in the model


@pytest.mark.parametrize("kind", sorted(OTHER))
def test_heads_with_something_behind_them_are_read_as_they_come(kind):
    model, inputs = make(OTHER[kind]()), batch()
    reader = SignalReader(model, 5)
    assert_right(reader.read(*inputs), model, inputs, 5)
    assert not reader.fused
    assert_right(reader.read(*inputs), model, inputs, 5)


def test_zeros_prove_nothing():
    """Where every chosen vector is zero, a capped head and a plain one agree: the reader takes neither for granted."""
    model = make(OTHER["gemma2"]())
    model.get_input_embeddings().weight.data[7] = 0.0
    ids, attention, chosen = batch()
    ids = torch.full_like(ids, 7)
    reader = SignalReader(model, 5)
    assert_right(reader.read(ids, attention, chosen), model, (ids, attention, chosen), 5)
    assert not reader.fused


class _Doubled(torch.nn.Linear):
    def forward(self, hidden):
        return 2 * super().forward(hidden)


def test_a_replaced_head_is_called_as_it_is():
    model, inputs = make(PLAIN["llama"]()), batch()
    old = model.get_output_embeddings()
    model.set_output_embeddings(_Doubled(16, 90, bias=False))
    model.get_output_embeddings().weight = old.weight
    reader = SignalReader(model, 5)
    assert not reader.fused
    assert_right(reader.read(*inputs), model, inputs, 5)


def test_what_the_model_does_later_is_seen_too():
    model, inputs = make(PLAIN["llama"]()), batch()
    reader = SignalReader(model, 5)
    reader.read(*inputs)
    assert reader.fused
    plain = type(model).forward

    def capped(*args, **options):
        found = plain(model, *args, **options)
        found.logits = found.logits * 0.5
        return found

    model.forward = capped
    assert_right(reader.read(*inputs), model, inputs, 5)
    assert not reader.fused


def test_a_hook_on_the_head_is_part_of_it():
    model, inputs = make(PLAIN["llama"]()), batch()
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: out.clamp(max=0.1))
    reader = SignalReader(model, 5)
    assert_right(reader.read(*inputs), model, inputs, 5)
    assert not reader.fused


def test_bfloat16_and_many_rows(monkeypatch):
    monkeypatch.setattr("gfviz.capture.forward.ROWS", 2)
    model, inputs = make(PLAIN["llama"]()).to(torch.bfloat16), batch()
    reader = SignalReader(model, 5)
    found = reader.read(*inputs)
    assert reader.fused
    assert found.values.dtype == torch.bfloat16
    with torch.no_grad():
        own = model(input_ids=inputs[0], attention_mask=inputs[1]).logits[inputs[2]]
    naive = own.float().sort(-1, descending=True).values[:, :5]
    torch.testing.assert_close(found.values.float(), naive, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("kind", [*sorted(PLAIN), *sorted(OTHER)])
def test_targets_and_temperature_against_the_models_own_logits(kind, temperature):
    """A window of the last positions, each with a token of its own, in float64 from the whole logits."""
    model, (ids, attention, chosen) = make({**PLAIN, **OTHER}[kind]()), batch()
    if kind == "phi":
        model.get_output_embeddings().bias.data.normal_()
    window = chosen[:, 3:]
    targets = torch.randint(0, 90, window.shape, generator=torch.Generator().manual_seed(3))
    reader = SignalReader(model, 5)
    signal, found = reader.read_targets(ids, attention, window, targets, temperature)
    positions = (attention.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention, position_ids=positions).logits[:, 3:][window]
    logits = logits.double() / temperature
    torch.testing.assert_close(signal.values.double(), logits.sort(-1, descending=True).values[:, :5], **CLOSE)
    torch.testing.assert_close(signal.logsumexp.double(), torch.logsumexp(logits, -1), **CLOSE)
    torch.testing.assert_close(found.double(), logits.gather(1, targets[window].unsqueeze(1)).squeeze(1), **CLOSE)
    assert reader.fused is (kind in PLAIN)
    assert len(found) == int(window.sum()) > 0


def test_a_model_trains_on_after_it_was_read():
    model, (ids, attention, chosen) = make(PLAIN["llama"]()), batch()
    SignalReader(model, 5).read_targets(ids, attention, chosen, ids)
    model(input_ids=ids).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_no_position_gives_an_empty_signal():
    model, (ids, attention, chosen) = make(PLAIN["llama"]()), batch()
    signal, found = SignalReader(model, 5).read_targets(ids, attention, torch.zeros_like(chosen), ids)
    assert (signal.values.shape, len(found)) == ((0, 5), 0)
