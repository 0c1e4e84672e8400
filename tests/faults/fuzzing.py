"""Many hostile inputs for every parser: guided by coverage where atheris is installed, by our own mutations alone else.

Each parser runs in a process of its own, so that a crash of the interpreter, a hang or 2 GB of memory is a finding too.
"""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.commands import ROOT, environment

HANG_SECONDS, MEMORY_MB, MOST_BYTES = 20, 3000, 16384


@dataclass
class Storm:
    """What came of it: inputs tried, how many of them crashed a parser, and each different crash once."""

    engine: str = ""
    inputs: int = 0
    crashes: int = 0
    by_parser: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def storm(
    inputs: int, seed: int, say: Callable[[str], None] = lambda _text: None, only: Sequence[str] | None = None
) -> Storm:
    """Give about `inputs` hostile inputs to all parsers (or `only` those named), each its share.

    Another interpreter imports the library once (counting coverage in it) and forks a child for each parser.
    """
    guided = importlib.util.find_spec("atheris") is not None
    found = Storm("atheris (coverage-guided) with structured mutations" if guided else "structured mutations alone")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="gfviz-fuzz-", dir=memory if memory.is_dir() else None) as home:
        command = [
            sys.executable,
            "-m",
            "tests.faults.fuzzing",
            str(inputs),
            str(seed),
            home,
            str(int(guided)),
            *(only or []),
        ]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                name, code, report = json.loads(line)
                if code != 0:
                    report["crashes"] += 1
                    report["findings"].append(f"the process ended with {code}")
                found.inputs += report["inputs"]
                found.by_parser[name] = report["inputs"]
                found.crashes += report["crashes"]
                found.findings += [f"{name}: {text}" for text in report["findings"]]
                say(f"{name}: {report['inputs']} inputs, {report['crashes']} crashes {report['findings'][:3]}")
        if process.returncode != 0:
            found.crashes += 1
            found.findings.append(f"the fuzzing process ended with {process.returncode}")
    return found


class Counter:
    """Counts inputs of one parser and keeps the first of each different crash, in a file that survives the process."""

    def __init__(self, name: str, home: Path, count: int) -> None:
        from tests.faults.parsers import PARSERS

        self.parser, self.count, self.home, self.out = PARSERS[name], count, home / "files", home / "report.json"
        self.home.mkdir(parents=True)
        self.inputs = self.crashes = 0
        self.findings: dict[str, str] = {}

    def give(self, content: bytes) -> None:
        """One input."""
        from tests.faults.parsers import give

        problem = give(self.parser, content, self.home)
        self.inputs += 1
        if problem is not None:
            self.crashes += 1
            self.findings.setdefault(problem.split(": ")[0], f"{problem} (input {content[:60]!r})")
        # libFuzzer ends the process without a word to Python: the last counts are written before it can.
        if self.inputs % 500 == 0 or problem is not None or self.inputs >= self.count - 2:
            self.save()

    def save(self) -> None:
        """Write the counts down."""
        report = {"inputs": self.inputs, "crashes": self.crashes, "findings": list(self.findings.values())}
        self.out.write_text(json.dumps(report))


def _guided(counter: Counter, count: int, seed: int, home: Path) -> None:
    import atheris

    from tests.faults.mutations import mutate

    corpus = home / "corpus"
    corpus.mkdir()
    for number, content in enumerate(counter.parser.seeds()):
        (corpus / str(number)).write_bytes(content)

    def one(content: bytes) -> None:
        counter.give(content)

    def custom(content: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < 0.3:
            return atheris.Mutate(content, most)
        return mutate(content, counter.parser.form, draw)[:most]

    options = [
        f"-runs={count}", f"-seed={seed + 1}", f"-max_len={MOST_BYTES}", f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=0", "-verbosity=0", f"-artifact_prefix={home}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=custom)
    atheris.Fuzz()


def _plain(counter: Counter, count: int, seed: int) -> None:
    from tests.faults.mutations import mutate

    draw, seeds = random.Random(seed), counter.parser.seeds()
    kept = list(seeds)
    for _ in range(count):
        content = mutate(draw.choice(kept), counter.parser.form, draw)[:MOST_BYTES]
        counter.give(content)
        if draw.random() < 0.02:
            kept = [*seeds, *kept[len(seeds) :][-30:], content]


def main(arguments: list[str]) -> int:
    """`python -m tests.faults.fuzzing INPUTS SEED HOME GUIDED [PARSER]...`: a line of JSON for each parser."""
    inputs, seed, home, guided = int(arguments[0]), int(arguments[1]), Path(arguments[2]), arguments[3] == "1"
    if guided:
        import atheris

        # What is imported here is what coverage is counted in.
        with atheris.instrument_imports(include=["gfviz"]):
            from tests.faults.parsers import PARSERS
    else:
        from tests.faults.parsers import PARSERS
    chosen = {name: parser for name, parser in PARSERS.items() if not arguments[4:] or name in arguments[4:]}
    whole = sum(parser.share for parser in chosen.values())
    for number, (name, parser) in enumerate(chosen.items()):
        count = max(1, round(inputs * parser.share / whole))
        folder = home / str(number)
        code = _in_child(
            lambda name=name, folder=folder, count=count: _storm_one(name, folder, count, seed, guided), count
        )
        out = folder / "report.json"
        report = json.loads(out.read_text()) if out.is_file() else {"inputs": 0, "crashes": 0, "findings": []}
        print(json.dumps([name, code, report]), flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _storm_one(name: str, folder: Path, count: int, seed: int, guided: bool) -> None:
    # Broken inputs make libraries talk; nobody reads it, and it would cost more than the parsing.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    counter = Counter(name, folder, count)
    if guided:
        _guided(counter, count, seed, folder)
    else:
        _plain(counter, count, seed)
    counter.save()


def _in_child(body: Callable[[], None], count: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + 120 + count / 10
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
