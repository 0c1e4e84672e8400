"""The campaign: kill −9 at random moments, look, restart, compare with what was never killed."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.app_victim import KINDS
from tests.faults.commands import COMMANDS
from tests.faults.victims import Victim


@dataclass
class Kills:
    """What came of it: `survived` kills after which all was there; `lost` counts what was not as it must be."""

    kills: int = 0
    survived: int = 0
    lost: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def campaign(
    kills: int, seed: int, say: Callable[[str], None] = lambda _text: None, only: Sequence[str] | None = None
) -> Kills:
    """Kill `kills` times, in turn over the kinds of process (all, or `only` those named).

    Every sixth victim is a real process of the command line; the others are forks of this one.
    """
    found, draw = Kills(), random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="gfviz-faults-"))
    shared = root / "shared"
    number = 0
    try:
        kinds = [kind for kind in KINDS if only is None or kind.name in only]
        commands = [kind for kind in COMMANDS if only is None or kind.name in only]
        for kind in KINDS:
            if kind in kinds or any(command.name.startswith(f"{kind.name}-") for command in commands):
                kind.reference(shared)
        while found.kills < kills:
            command = bool(commands) and (number % 6 == 5 or not kinds)
            turn = number // 6 if kinds else number
            kind = commands[turn % len(commands)] if command else kinds[(number - turn) % len(kinds)]
            # A command is measured against the unbroken job of the kind that it runs.
            victim = kind(root / f"{kind.name}-{number}", shared / kind.name.split("-")[0])
            number += 1
            before = found.kills
            _torment(victim, found, draw, min(kills - found.kills, victim.most_kills))
            say(f"{kind.name}: {found.kills - before} kills, {found.kills} in all, {found.lost} lost")
            shutil.rmtree(victim.broken, ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return found


def _torment(victim: Victim, found: Kills, draw: random.Random, most: int) -> None:
    problems: list[str] = []
    count = 0
    for _ in range(2 * most):
        if count >= most:
            break
        # Half of the time on a disk so slow that many a kill falls into a write.
        slow = draw.random() < 0.5
        # On a busy machine an interpreter takes longer to start than a command has been given here to live.
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        first = victim.first_moment * busy
        last = victim.seconds * victim.reach * (busy if first else 1.0) * (1.4 if slow else 1.0)
        ended = victim.start(first + draw.random() * last, slow)
        if not ended.killed:
            if ended.code != 0:
                problems.append(f"a restart failed: {' '.join(ended.printed[-600:].split())}")
            break
        count += 1
        problems += victim.check()
    problems += victim.finish()
    found.kills += count
    found.by_kind[victim.name] = found.by_kind.get(victim.name, 0) + count
    found.survived += 0 if problems else count
    found.lost += len(problems)
    found.findings += [f"{victim.name}: {text}" for text in problems]
