"""What each rung is expected to take, (seconds on one core, bytes), from the sizes alone: the same on any machine."""

from __future__ import annotations

from gfviz.gromov.network import FULL_SPECTRUM, MeasureNetwork
from gfviz.gromov.problem import Problem
from gfviz.gromov.rows import CELLS, QUICK_STEPS


def size(problem: Problem) -> tuple[float, float]:
    return float(problem.a.n), float(problem.b.n)


def line(problem: Problem) -> tuple[float, float]:
    n, m = size(problem)
    stored = sum(8.0 * (x.z.nnz if x.z is not None else x.n**2) for x in (problem.a, problem.b))
    return 2e-5 + 3e-7 * (n + m) + 1e-10 * stored, 40 * (n + m)


def matrix(problem: Problem, order: float, unit: float, first: float = 2e-4) -> tuple[float, float]:
    # `first` is what the calls take at any size: of small pairs, nearly all
    n, m = size(problem)
    return first + unit * (n**order + m**order), 32 * (n * n + m * m)


def gradient(problem: Problem) -> tuple[float, float]:
    # the transports of unequal weights take several times as long as assignments
    return matrix(problem, 3, 3e-9, 5e-4) if problem.square else matrix(problem, 3, 9e-9, 1.5e-3)


def projected(problem: Problem, steps: int) -> tuple[float, float]:
    return matrix(problem, 3, steps * (5e-10 if problem.square else 6e-10), steps * 1.5e-4)


def ascent(problem: Problem, steps: int) -> tuple[float, float]:
    return matrix(problem, 2, steps * 6e-8, steps * 1.2e-4)


def multistart(problem: Problem) -> tuple[float, float]:
    return matrix(problem, 3, 4e-8 if problem.p == 2 and problem.square else 3e-7, 3e-3)


def held(network: MeasureNetwork) -> float:
    # numbers gone through: the Gram's where there are factors (the problem's margin has computed it), else the stored
    return float(network.z.shape[0] ** 2 if network.z is not None else network.stored)


def norm(problem: Problem) -> tuple[float, float]:
    numbers = held(problem.a) + held(problem.b)
    return 5e-5 + 1e-8 * numbers, 32 * numbers


def spectrum(problem: Problem) -> tuple[float, float]:
    seconds, room = norm(problem)
    seconds += 3e-4
    for numbers in (held(problem.a), held(problem.b)):
        full = problem.dense or numbers <= FULL_SPECTRUM**2
        seconds += 1.5e-10 * numbers**1.5 + 5e-8 * numbers if full else 1e-7 * numbers
    return seconds, room


def entries(problem: Problem) -> tuple[float, float]:
    listed = sum(side.n**2 / 2 if side.is_dense else side.products for side in (problem.a, problem.b))
    return 5e-5 + 3e-7 * listed, 72.0 * listed


def rows(problem: Problem, exact: bool = False) -> tuple[float, float]:
    if problem.square:
        return matrix(problem, 3, 4e-10)
    n, m = size(problem)
    merges = n * m * (n + m)
    if problem.a.uniform and problem.b.uniform:
        compare = 6e-11 * merges
    else:
        compare = 2e-9 * merges if exact or merges <= QUICK_STEPS else 2e-7 * (n * n + m * m) + 1.2e-10 * n * m * CELLS
    # sorting, comparing rows, and the network simplex, which grows with the cells and slowly with the nodes
    return 1e-4 + 2e-8 * (n * n + m * m) + compare + 5e-7 * n * m, 8 * ((n + m) ** 2 + 3 * n * m)


def exact_rows(problem: Problem) -> tuple[float, float]:
    return rows(problem, exact=True)


def moves(problem: Problem, work: float) -> int:
    # each changes up to n·m numbers; small pairs are never cut short
    return int(max(work / 5e6, work / (problem.a.n * problem.b.n)))


def exchange(problem: Problem, work: float) -> tuple[float, float]:
    n, m = size(problem)
    if problem.p != 2:
        return matrix(problem, 3, 3e-8)
    made = min(moves(problem, work), 6 * (n + m))
    return 2e-4 + 4e-10 * n * m * made + 2e-8 * (n + m) ** 2, 40 * n * m


def head_rows(problem: Problem) -> tuple[float, float]:
    n, m = size(problem)
    return 0.5 + 1.5e-4 * (n + m), 64 * 40 * (n + m) + 1e8


def dual(problem: Problem, sweeps: int) -> tuple[float, float]:
    n = problem.a.n
    return 1e-4 + sweeps * (5e-9 * n**4 + 3e-7 * n**3), 16.0 * n**4


def _weighted_sweep(problem: Problem) -> float:
    # n·m transports of n·m costs, from their bases of the last sweep: 0.6 s for 64 and 80 nodes
    return 2.4e-8 * float(problem.a.n * problem.b.n) ** 2


def weighted_sweeps(problem: Problem) -> int:
    # as many as take some five seconds
    return int(min(120, max(1, 5.0 / _weighted_sweep(problem))))


def weighted_dual(problem: Problem) -> tuple[float, float]:
    cells = float(problem.a.n * problem.b.n)
    return 1e-3 + weighted_sweeps(problem) * _weighted_sweep(problem), 24.0 * cells**2


def sweeps(problem: Problem) -> int:
    # about the same work at every n; at n = 64 some seconds
    return int(min(120, max(4, 30 * (64 / problem.a.n) ** 4)))


def nodes(problem: Problem) -> int:
    # subproblems of 12 sweeps each: about 20 s at any n, so that the rung stays inside the budget that names it
    return int(min(4000, max(40, 20 / dual(problem, 12)[0])))
