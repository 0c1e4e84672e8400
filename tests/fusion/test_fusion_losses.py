"""Losses against values worked by hand and against dense float64 computations that share no code with them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from gfviz.fusion.losses import (
    BOUNDS,
    AnchoredGLD,
    AnswerSignal,
    ApproximateLikelihoodMatching,
    DenseGLD,
    ForwardKL,
    SignalPair,
    SortedGLD,
    UniversalLogitDistillation,
    disagreement,
)
from gfviz.fusion.losses.token import log_complement
from gfviz.fusion.teachers import answer_signal
from gfviz.fusion.vocabularies import shared_tokens
from gfviz.kernels import topk_logsumexp_picks
from gfviz.signals import Vocabulary

R, W, VS, VT, K = 3, 6, 11, 9, 5


def make_pair(seed: int = 0, k: int = K, vt: int = VT, garbage: float | None = None):
    """Random student and teacher; returns the pair, both dense log-probabilities (numpy) and the student's logits."""
    rng = np.random.default_rng(seed)
    student = torch.tensor(rng.normal(size=(R, W, VS)) * 2, requires_grad=True)
    teacher = torch.tensor(rng.normal(size=(R, W + 1, vt)) * 2)
    lengths, others = (6, 4, 5), (7, 3, 5)
    masks = [torch.zeros(R, W, dtype=torch.bool), torch.zeros(R, W + 1, dtype=torch.bool)]
    for row in range(R):
        masks[0][row, W - lengths[row] :] = True
        masks[1][row, W + 1 - others[row] :] = True
    dense = student
    if garbage is not None:
        # What stands at positions that do not count must not matter, whatever it is.
        dense = torch.where(masks[0].unsqueeze(-1), student, torch.full_like(student, garbage))
        teacher = torch.where(masks[1].unsqueeze(-1), teacher, torch.full_like(teacher, garbage))
    labels = [torch.tensor(rng.integers(0, v, size=m.shape)) for v, m in zip((VS, vt), masks)]
    signals = [
        answer_signal(logits, {"mask": mask, "labels": label}, k)
        for logits, mask, label in zip((dense, teacher), masks, labels)
    ]
    aligned = torch.zeros(R, 4, dtype=torch.bool)
    at = [torch.zeros(R, 4, dtype=torch.int64) for _ in range(2)]
    chunks = [torch.full(mask.shape, -1) for mask in masks]
    for row in range(R):
        count = min(4, lengths[row], others[row])
        aligned[row, :count] = True
        for side, (length, width) in enumerate(((lengths[row], W), (others[row], W + 1))):
            first = width - length
            at[side][row, :count] = torch.arange(first, first + count)
            chunks[side][row, first:] = torch.arange(length).clamp_max(count - 1)
    numbers = aligned.sum(1)

    def log_prob(ids):
        chosen = dense.gather(-1, ids) - signals[0].signal.logsumexp.unsqueeze(-1)
        return torch.where(masks[0].unsqueeze(-1), chosen, 0.0)

    pair = SignalPair(signals[0], signals[1], at[0], at[1], aligned, chunks[0], chunks[1], numbers, log_prob)
    with torch.no_grad():
        plain = [torch.log_softmax(x, -1).numpy() for x in (student, teacher)]
    return pair, plain, student, labels


def pairs_of(pair: SignalPair):
    for row in range(R):
        for number in range(int(pair.aligned[row].sum())):
            yield row, int(pair.student_at[row, number]), int(pair.teacher_at[row, number])


def top(log_prob: np.ndarray, k: int = K) -> np.ndarray:
    return np.sort(np.exp(log_prob))[::-1][:k]


def graph(log_prob: np.ndarray, mask: np.ndarray, k: int = K) -> np.ndarray:
    z = np.array([top(row, k) for row in log_prob[mask]])
    return z.T @ z / len(z)


def test_uld_and_its_tail_interval() -> None:
    pair, (ours, theirs), _, _ = make_pair()
    result = UniversalLogitDistillation()(pair)
    expected = [np.abs(top(ours[r, i]) - top(theirs[r, j])).sum() for r, i, j in pairs_of(pair)]
    assert result.units.item() == len(expected)
    assert result.total.item() == pytest.approx(sum(expected), rel=1e-12)
    whole = 0.0
    for r, i, j in pairs_of(pair):
        a = np.sort(np.exp(ours[r, i]))[::-1]
        b = np.zeros(VS)
        b[:VT] = np.sort(np.exp(theirs[r, j]))[::-1]
        whole += np.abs(a - b).sum()
    assert result.notes["tail_low"].item() <= whole <= result.notes["tail_high"].item()
    assert result.total.item() <= result.notes["tail_low"].item()


def test_kl_with_all_ids_is_the_full_divergence() -> None:
    pair, (ours, theirs), _, _ = make_pair(k=VS, vt=VS)
    result = ForwardKL()(pair)
    expected = sum((np.exp(theirs[r, j]) * (theirs[r, j] - ours[r, i])).sum() for r, i, j in pairs_of(pair))
    assert result.total.item() == pytest.approx(expected, rel=1e-9)
    narrow = ForwardKL()(make_pair(k=3, vt=VS)[0]).total.item()
    assert 0 < narrow < expected


def test_alm_by_hand() -> None:
    pair, (ours, theirs), _, labels = make_pair()
    tau = 2.0
    expected = 0.0
    for row in range(R):
        for chunk in range(int(pair.chunks[row])):
            logs = []
            for log_prob, numbers, label in zip((ours, theirs), (pair.student_chunks, pair.teacher_chunks), labels):
                inside = np.flatnonzero(numbers[row].numpy() == chunk)
                logs.append(sum(log_prob[row, i, label[row, i]] for i in inside) / tau)
            q, p = (np.exp(value) for value in logs)
            expected += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    result = ApproximateLikelihoodMatching(tau)(pair)
    assert result.total.item() == pytest.approx(expected, rel=1e-9)


def test_alm_where_the_teacher_gives_a_span_no_probability() -> None:
    """0·log 0 is 0: what is left is −log(1 − Q), in value and gradient."""
    pair, (ours, _), student, labels = make_pair()
    whole = ApproximateLikelihoodMatching()(pair).total.item()
    row, chunk = 1, 0
    inside = np.flatnonzero(pair.student_chunks[row].numpy() == chunk)
    at = np.flatnonzero(pair.teacher_chunks[row].numpy() == chunk)[0]
    own = pair.teacher.token_log_prob.clone()
    before = own[row, torch.from_numpy(pair.teacher_chunks[row].numpy() == chunk)].sum().item()
    own[row, at] = -torch.inf
    q = np.exp(sum(ours[row, i, labels[0][row, i]] for i in inside))
    p = np.exp(before)
    gone = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = ApproximateLikelihoodMatching()(replace(pair, teacher=replace(pair.teacher, token_log_prob=own)))
    assert found.total.item() == pytest.approx(whole - gone - np.log(1 - q), rel=1e-9)
    found.total.backward(retain_graph=True)
    slope = student.grad.clone()
    assert torch.isfinite(slope).all()
    # The limit is taken by a probability that only all but vanishes.
    student.grad = None
    own[row, at] = -600.0
    near = ApproximateLikelihoodMatching()(replace(pair, teacher=replace(pair.teacher, token_log_prob=own)))
    near.total.backward()
    torch.testing.assert_close(slope, student.grad, rtol=1e-12, atol=1e-15)


def test_log_complement_near_both_ends() -> None:
    x = torch.tensor([-1e-6, -1e-3, -0.5, -0.693, -2.0, -40.0], dtype=torch.float64, requires_grad=True)
    value = log_complement(x)
    np.testing.assert_allclose(
        value.detach(), [np.log(-np.expm1(v)) if v > -1 else np.log1p(-np.exp(v)) for v in x.tolist()], rtol=1e-12
    )
    value.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_sorted_gld_is_the_papers_sum() -> None:
    pair, dense, _, _ = make_pair()
    masks = [side.signal.mask.numpy() for side in (pair.student, pair.teacher)]
    expected = 0.0
    for row in range(R):
        f = [np.sort(graph(d[row], m[row]).mean(0))[::-1] for d, m in zip(dense, masks)]
        expected += np.abs(f[0] - f[1]).sum()
    result = SortedGLD()(pair)
    assert result.units.item() == R
    assert result.total.item() == pytest.approx(expected, rel=1e-12)


def exact_squared(c: np.ndarray, d: np.ndarray) -> float:
    """n²·GW_2² of two PSD graphs of equal size and uniform weights: the best permutation (MATH.md section 3)."""
    return min(((c - d[np.ix_(p, p)]) ** 2).sum() for p in map(list, itertools.permutations(range(len(c)))))


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_bounds_lie_below_enumeration(name: str) -> None:
    for seed in range(6):
        pair, dense, _, _ = make_pair(seed)
        masks = [side.signal.mask.numpy() for side in (pair.student, pair.teacher)]
        ours, theirs = (np.array([graph(d[row], m[row]) for row in range(R)]) for d, m in zip(dense, masks))
        values = BOUNDS[name](torch.tensor(ours), torch.tensor(theirs)).numpy()
        for row in range(R):
            assert 0 <= values[row] <= exact_squared(ours[row], theirs[row]) * (1 + 1e-9)
        assert DenseGLD(BOUNDS[name])(pair).total.item() == pytest.approx(values.sum(), rel=1e-9)


def test_bounds_against_the_library_and_each_other() -> None:
    """centred <= spectral, and each times 1/k² is the squared bound that gromov computes in another way."""
    rng = np.random.default_rng(3)
    z, y = rng.random((4, K)), rng.random((6, K))
    c, d = z.T @ z / 4, y.T @ y / 6
    centred, spectral, entries = (
        BOUNDS[name](torch.tensor(c)[None], torch.tensor(d)[None]).item() for name in ("centred", "spectral", "entries")
    )
    assert centred <= spectral + 1e-12
    split = ((np.sort(np.diag(c)) - np.sort(np.diag(d))) ** 2).sum()
    off = ~np.eye(K, dtype=bool)
    split += ((np.sort(c[off]) - np.sort(d[off])) ** 2).sum()
    assert entries == pytest.approx(split, rel=1e-12)
    h = np.eye(K) - 1 / K
    (cbar, a, r), (dbar, b, s) = ((g.mean(), g.mean(0) - g.mean(), h @ g @ h) for g in (c, d))
    shared = (cbar - dbar) ** 2 + 2 * ((np.sort(a) - np.sort(b)) ** 2).mean()
    spectra = np.linalg.eigvalsh(r) / K - np.linalg.eigvalsh(s) / K
    assert spectral == pytest.approx(K * K * (shared + (spectra**2).sum()), rel=1e-9)
    norms = (np.linalg.norm(r) - np.linalg.norm(s)) / K
    assert centred == pytest.approx(K * K * (shared + norms**2), rel=1e-6)


def anchored_by_hand(pair, dense, maps) -> float:
    total = 0.0
    masks = [side.signal.mask.numpy() for side in (pair.student, pair.teacher)]
    for row in range(R):
        graphs, profiles = [], []
        for log_prob, mask, table in zip(dense, masks, maps):
            rows = log_prob[row][mask[row]]
            z = np.zeros_like(rows)
            for t, values in enumerate(rows):
                keep = np.argsort(-values)[:K]
                z[t, keep] = np.exp(values[keep])
            c = z.T @ z / len(z)
            shared = np.zeros((20, 20))
            known = np.flatnonzero(table.numpy() >= 0)
            shared[np.ix_(table.numpy()[known], table.numpy()[known])] = c[np.ix_(known, known)]
            graphs.append(shared)
            alone = np.zeros(20)
            rest = np.flatnonzero(table.numpy() < 0)
            alone[: len(rest)] = np.sort(c.sum(0)[rest])[::-1]
            profiles.append(alone)
        total += ((graphs[0] - graphs[1]) ** 2).sum() + ((profiles[0] - profiles[1]) ** 2).sum()
    return total


def maps_of() -> tuple[torch.Tensor, torch.Tensor]:
    student = Vocabulary.from_tokens([f"t{i}" for i in range(VS)], convention="plain")
    teacher = Vocabulary.from_tokens([f"t{2 * i}" for i in range(VT)], convention="plain")
    first, second, count = shared_tokens(student, teacher, (VS, VT))
    assert count == 6
    return first, second


def test_anchored_against_dense_graphs() -> None:
    pair, dense, _, _ = make_pair()
    maps = maps_of()
    assert AnchoredGLD(*maps)(pair).total.item() == pytest.approx(anchored_by_hand(pair, dense, maps), rel=1e-9)


@pytest.mark.parametrize("tile", [1, 200, 1 << 22])
def test_the_difference_of_graphs_in_tiles_of_any_size(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and slope against dense matrices; sides of unequal length and width, a token twice in a position."""
    monkeypatch.setattr(disagreement, "_TILE", tile)
    draw = torch.Generator().manual_seed(2)
    sides = [torch.randint(9, (3, *shape), generator=draw) for shape in ((40, 5), (21, 4))]
    inside = [torch.rand(numbers.shape, generator=draw) < 0.7 for numbers in sides]
    values = [
        torch.rand(numbers.shape, generator=draw, dtype=torch.float64) * here for numbers, here in zip(sides, inside)
    ]
    values[0].requires_grad_()
    nodes, count = disagreement.token_nodes(sides, inside, 9)
    found = disagreement.squared_difference(*values, *nodes, count)
    x, y = (torch.zeros(*v.shape[:2], 9, dtype=v.dtype).scatter_add(2, n, v) for v, n in zip(values, sides))
    dense = (x.transpose(1, 2) @ x - y.transpose(1, 2) @ y).square().sum((1, 2))
    torch.testing.assert_close(found, dense, rtol=1e-12, atol=0)
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), values[0])[0] for value in (found, dense))
    torch.testing.assert_close(ours * inside[0], theirs * inside[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picked_logit_has_the_gradient_of_a_gather(dtype: torch.dtype) -> None:
    """Behind a layer, beside the gradient of the logsumexp; a token asked for twice, two picks, two backward passes."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 40, generator=draw).to(dtype)
    hidden = torch.randn(2, 3, 6, generator=draw).to(dtype)
    ids = torch.randint(40, (2, 3, 7), generator=draw)
    ids[..., 1] = ids[..., 0]
    found = []
    for ours in (True, False):
        leaf = hidden.clone().requires_grad_()
        logits = leaf @ weight
        values, _, total, picks = topk_logsumexp_picks(logits, 3)
        if not ours:
            values, total = logits.topk(3).values, torch.logsumexp(logits.float(), -1)
            picks = lambda ids, logits=logits: logits.gather(-1, ids)  # noqa: E731
        first = total.sum() - picks(ids).float().square().sum()
        both = first + values.float().sum() + picks(ids[..., :2]).float().sum()
        alone = picks(ids[..., 2:3]).float().sum()
        found.append([torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in (first, both, alone, first)])
    for mine, plain in zip(*found):
        torch.testing.assert_close(mine, plain)
    assert torch.equal(found[0][0], found[0][3])


def test_only_anchored_knows_which_token_is_which() -> None:
    pair, _, student, _ = make_pair()
    maps = maps_of()
    order = torch.randperm(VS, generator=torch.Generator().manual_seed(1))
    moved = answer_signal(
        student.detach()[..., order],
        {"mask": pair.student.signal.mask, "labels": torch.zeros(R, W, dtype=torch.int64)},
        K,
    )
    permuted = SignalPair(**{**vars(pair), "student": moved})
    blind = [SortedGLD(), UniversalLogitDistillation(), *(DenseGLD(bound) for bound in BOUNDS.values())]
    for loss in blind:
        assert loss(permuted).total.item() == pytest.approx(loss(pair).total.item(), rel=1e-12)
    assert abs(AnchoredGLD(*maps)(permuted).total.item() - AnchoredGLD(*maps)(pair).total.item()) > 1e-3


LOSSES = {
    "uld": UniversalLogitDistillation(),
    "alm": ApproximateLikelihoodMatching(),
    "sorted": SortedGLD(),
    **{name: DenseGLD(bound) for name, bound in BOUNDS.items()},
    "anchored": AnchoredGLD(*maps_of()),
    "kl": ForwardKL(),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_against_differences(name: str) -> None:
    pair, _, student, _ = make_pair(4, vt=VS if name == "kl" else VT)
    LOSSES[name](pair).total.backward()
    gradient = student.grad.clone()
    step = 1e-6
    rng = np.random.default_rng(0)
    for _ in range(12):
        r, w, v = (int(rng.integers(n)) for n in (R, W, VS))
        values = []
        for sign in (1, -1):
            moved, _, leaf, _ = make_pair(4, vt=VS if name == "kl" else VT)
            with torch.no_grad():
                leaf[r, w, v] += sign * step
            again = answer_signal(leaf, {"mask": moved.student.signal.mask, "labels": make_pair(4)[3][0]}, K)

            def log_prob(ids, leaf=leaf, again=again, mask=moved.student.signal.mask):
                chosen = leaf.gather(-1, ids) - again.signal.logsumexp.unsqueeze(-1)
                return torch.where(mask.unsqueeze(-1), chosen, 0.0)

            changed = SignalPair(**{**vars(moved), "student": again, "student_log_prob": log_prob})
            values.append(LOSSES[name](changed).total.item())
        assert gradient[r, w, v].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-4, abs=2e-8)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_masked_positions_may_hold_anything(name: str, garbage: float) -> None:
    clean, _, student, _ = make_pair(5, vt=VS if name == "kl" else VT)
    dirty, _, other, _ = make_pair(5, vt=VS if name == "kl" else VT, garbage=garbage)
    first, second = LOSSES[name](clean).total, LOSSES[name](dirty).total
    assert second.item() == first.item()
    first.backward()
    second.backward()
    torch.testing.assert_close(other.grad, student.grad, rtol=0, atol=0)


def test_equal_models_have_no_loss() -> None:
    pair, _, _, _ = make_pair(6)
    same = SignalPair(
        pair.student, AnswerSignal(pair.student.signal.detach(), pair.student.token_log_prob.detach()), pair.student_at,
        pair.student_at, pair.aligned, pair.student_chunks, pair.student_chunks, pair.chunks, pair.student_log_prob,
    )  # fmt: skip
    table = torch.arange(VS)
    for loss in (*LOSSES.values(), AnchoredGLD(table, table)):
        if loss is not LOSSES["anchored"]:
            assert loss(same).total.item() == pytest.approx(0, abs=1e-12)
