"""Balancing: by the gradients of the whole step, at any temperature, whichever losses a teacher has."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gfviz.fusion import fuse
from gfviz.fusion.config import parse_config
from gfviz.fusion.prepare import prepare
from gfviz.fusion.session import create_run, execute
from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import power_cut, sums


def balanced(zoo, tmp_path: Path, token: str | None = None, domains=None, training=None, **loss) -> dict:
    changes = {"structure": "spectral", "beta": 3.0, "balance": "gradient", "balance_every": 1, **loss}
    config = settings(zoo, tmp_path, loss=changes, training={"steps": 2, "log_every": 1, **(training or {})})
    config["teachers"][0] |= {"token": token, "domains": domains}
    return config


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("token", ["uld", "alm", "none"])
def test_scale_against_gradients_taken_by_hand(zoo, tmp_path: Path, token: str, temperature: float) -> None:
    """β·scale·‖∂structure‖ = ‖∂token‖, or ‖∂SFT‖ without a token loss, by the logits before any temperature."""
    config = parse_config(balanced(zoo, tmp_path, token, temperature=temperature))
    prepared = prepare(config, sums(8), [])
    objective, model = prepared.objective, prepared.pivot.model
    batch = prepared.collator(prepared.train)
    logits = window_logits(model, batch["student"], forward_arguments(model)).detach().requires_grad_()

    def value(lam: float, token_too: bool, structure_too: bool, measure: bool = False) -> torch.Tensor:
        objective.lam, term = lam, objective.terms[0]
        kept = term.token, term.structure
        term.token, term.structure = kept[0] if token_too else None, kept[1] if structure_too else None
        signal = answer_signal(logits, batch["student"], prepared.k, temperature)
        plain = answer_signal(logits, batch["student"], 1).token_log_prob
        found = objective(signal, plain, logits, batch, objective.counts([batch]), 0.0, measure).total
        term.token, term.structure = kept
        return found

    yardstick = value(1.0, True, False) if token != "none" else value(0.0, False, False)
    lengths = [
        torch.autograd.grad(one, logits)[0].double().norm().item() for one in (yardstick, value(1.0, False, True))
    ]
    assert objective.scales == {}
    value(0.5, True, True, measure=True)
    objective.rebalance(0.0)
    # The structure's own length holds β = 3 already.
    assert objective.scales["other"] == pytest.approx(lengths[0] / lengths[1], rel=1e-4)


@pytest.mark.parametrize("token", ["uld", "none"])
def test_scale_does_not_depend_on_how_the_step_is_cut(zoo, tmp_path: Path, token: str) -> None:
    """Also where some of the passes hold no example of the teacher."""
    curves = []
    for size, passes in ((8, 1), (2, 4), (1, 8)):
        training = {"steps": 3, "batch_size": size, "accumulation": passes, "max_grad_norm": 0.0}
        run = fuse(balanced(zoo, tmp_path, token, ["sum"], training), train=sums(8))
        curves.append([run.reader().series(name).values for name in ("grad_norm", "loss/total")])
    for other in curves[1:]:
        np.testing.assert_allclose(other, curves[0], rtol=1e-4)


def test_a_stopped_run_goes_on_with_its_scales(zoo, tmp_path: Path) -> None:
    training = {"steps": 5, "checkpoint_every": 2, "accumulation": 2}
    config = balanced(zoo, tmp_path, "none", training=training, temperature=2.0, balance_every=2)
    whole = fuse(config, train=sums(8))
    broken = create_run(parse_config(config), sums(8))

    with pytest.raises(RuntimeError, match="power"):
        execute(broken, power_cut(3))
    execute(broken)
    for name in ("loss/total", "grad_norm"):
        first, second = (run.reader().series(name).values for run in (whole, broken))
        np.testing.assert_array_equal(first, second)
