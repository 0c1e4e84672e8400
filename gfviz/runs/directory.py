"""The folder of one run, and the list of all of them.

`runs/ID/`: `config.yaml`, `run.json`, `metrics.db`, `graphs/`, `checkpoints/`, `model/`, `stdout.log`.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text, sweep, sync_folder
from gfviz.runs.foreign import checkpoint_is_whole, made_and_held, read_json, remove_dead_folders, text_of, time_of
from gfviz.runs.identity import ProcessIdentity, WriterLock
from gfviz.runs.reader import RunReader, RunState, RunStatus
from gfviz.runs.writer import FailurePolicy, RunWriter
from gfviz.runs.yamlfile import dump_mapping, read_mapping

RECORD_VERSION = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STEP_GRAPH = re.compile(r"step-(\d{1,12})-([A-Za-z0-9._-]+)\.safetensors")
_RESERVE, _RESERVE_BYTES = ".reserve", 64 * 1024
# Files and folders of a run, none of which may be a link: a run from elsewhere must not make us write elsewhere.
_PARTS = (
    "config.yaml", "run.json", "tags.json", "metrics.db", "metrics.db-wal", "metrics.db-shm", "stdout.log", ".lock",
    ".reserve", "graphs", "checkpoints", "model", "data", "pairs", "launch.json", "accelerate.yaml", "deepspeed.json",
)  # fmt: skip
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` says. `process` is the newest writer; `facts` holds versions, seeds and hashes."""

    id: str
    kind: str
    name: str
    created: float
    state: RunState
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    process: ProcessIdentity | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class StepGraph(NamedTuple):
    """One saved graph: `who` is `student` or a teacher's name, `step` None for a graph that does not change."""

    step: int | None
    who: str
    path: Path


def check_run_id(run_id: str) -> str:
    """The id itself where it can name a run folder; else `GfvizError` (no separators, no dots first, <= 100 letters).

    >>> check_run_id("20260101-120000-demo-1a2b")
    '20260101-120000-demo-1a2b'
    >>> check_run_id("../etc")
    Traceback (most recent call last):
    ...
    gfviz.errors.GfvizError: '../etc' cannot be a run id: use letters, digits, '.', '_' and '-', at most 100
    """
    if not _ID.fullmatch(run_id) or ".." in run_id:
        shown = run_id if len(run_id) < 120 else run_id[:117] + "..."
        raise GfvizError(f"{shown!r} cannot be a run id: use letters, digits, '.', '_' and '-', at most 100")
    return run_id


class RunDirectory:
    """One run on disk. Made by `create`, `open` or `find`; holds no file open until a reader or writer is asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: WriterLock | None = None

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def metrics_path(self) -> Path:
        """The SQLite store."""
        return self.path / "metrics.db"

    @property
    def log_path(self) -> Path:
        """What a detached run printed."""
        return self.path / "stdout.log"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of `checkpoint-N` folders."""
        return self.path / "checkpoints"

    @property
    def model_path(self) -> Path:
        """Where a finished fusion leaves the fused model, an ordinary transformers folder."""
        return self.path / "model"

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @classmethod
    def create(
        cls,
        root: str | Path,
        config: Mapping[str, Any],
        kind: str = "fusion",
        name: str | None = None,
        fill: Callable[[Path], None] = lambda _folder: None,
        process: ProcessIdentity | None = None,
    ) -> "RunDirectory":
        """Make a new run under `root` with a unique id; it appears whole or not at all.

        `name` becomes part of the id where it can. `fill(folder)` writes what else belongs into the run before it
        appears. `process` is who will write it, where that is known: its early death is then seen at once. Raises
        `GfvizError` where `root` cannot be written, and for a configuration that could not be read again.
        """
        root = Path(root)
        try:
            written = dump_mapping(config)
        except GfvizError as error:
            raise GfvizError(f"cannot make a run in {root}: its configuration cannot be kept: {error}") from error
        label = re.sub(r"[^A-Za-z0-9]+", "-", name or kind).strip("-").lower()[:40] or "run"
        moment = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(moment))
        run_id = check_run_id(f"{stamp}-{label}-{secrets.token_hex(2)}")
        scratch = root / f".new-{run_id}"
        try:
            remove_dead_folders(root)
            with made_and_held(scratch):
                (scratch / "graphs").mkdir()
                (scratch / "checkpoints").mkdir()
                run = cls(scratch)
                atomic_write_text(scratch / "config.yaml", written)
                fill(scratch)
                run._write_record(RunRecord(run_id, kind, name or label, moment, "queued", process=process))
                os.rename(scratch, root / run_id)
            sync_folder(root)
        except (OSError, GfvizError) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise GfvizError(f"cannot make a run in {root}: {reason}") from error
        return cls(root / run_id)

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """The run at `path`. Raises `GfvizError` where that is no run (a link, a broken `run.json`, a bad id)."""
        path = Path(path)
        check_run_id(path.name or path.resolve().name)
        path = path if path.name else path.resolve()
        if path.is_symlink() or not path.is_dir():
            raise GfvizError(f"no run at {path}: `gfviz runs list` shows what there is")
        linked = next((name for name in _PARTS if (path / name).is_symlink()), None)
        if linked is not None:
            raise GfvizError(f"{path / linked} is a link: a run is opened only where its files are its own")
        run = cls(path)
        run.record()
        return run

    @classmethod
    def find(cls, root: str | Path, run_id: str) -> "RunDirectory":
        """The run `run_id` under `root`, the id checked before it touches the disk; a unique prefix will do."""
        check_run_id(run_id)
        if (Path(root) / run_id).is_dir():
            return cls.open(Path(root) / run_id)
        matches = [run for run in list_runs(root) if run.id.startswith(run_id)]
        if len(matches) == 1:
            return matches[0]
        found = "no run" if not matches else f"{len(matches)} runs"
        raise GfvizError(f"{found} under {root} with an id that begins with '{run_id}': see `gfviz runs list`")

    def record(self) -> RunRecord:
        """What `run.json` says now. Raises `GfvizError` where it is missing, broken or of a newer version."""
        data = read_json(self.path / "run.json")
        version = data.get("version")
        if type(version) is not int or version < 1:
            raise GfvizError(f"{self.path / 'run.json'} is not a run record of gfviz: remove the folder or restore it")
        if version > RECORD_VERSION:
            raise GfvizError(f"run {self.id} was written by a newer gfviz (record {version}): upgrade to open it")
        state, facts = data.get("state"), data.get("facts")
        if not isinstance(state, str) or state not in get_args(RunState):
            raise GfvizError(f"{self.path / 'run.json'}: unknown state {text_of(state)[:40]!r}")
        created = time_of(data.get("created"))
        return RunRecord(
            id=self.id,
            kind=text_of(data.get("kind")),
            name=text_of(data.get("name")),
            created=0.0 if created is None else created,
            state=cast(RunState, state),
            reason=text_of(data.get("reason")),
            started=time_of(data.get("started")),
            ended=time_of(data.get("ended")),
            process=ProcessIdentity.from_json(data.get("process")),
            facts=facts if isinstance(facts, dict) else {},
        )

    def _write_record(self, record: RunRecord) -> None:
        data = {"version": RECORD_VERSION, **asdict(record)}
        data["process"] = record.process._asdict() if record.process else None
        atomic_write_text(self.path / "run.json", json.dumps(data, indent=1, sort_keys=True) + "\n")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as it was written at creation. Raises `GfvizError` where the file is broken."""
        return read_mapping(self.path / "config.yaml")

    def writer(self, on_failure: FailurePolicy = "continue") -> RunWriter:
        """Become the run's one writer. Raises `GfvizError` while another writer lives; takes over where it is dead."""
        record = self.record()
        lock = WriterLock(self.path / ".lock")
        other = record.process
        mine = ProcessIdentity.of()
        rival = (
            record.state == "running"
            and other is not None
            and (other.pid, other.ticks, other.host) != (mine.pid, mine.ticks, mine.host)
            and other.alive()
        )
        if rival or not _acquired(lock):
            who = f"process {other.pid} on {other.host}" if other else "another process"
            raise GfvizError(f"run {self.id} is being written by {who}: stop it first (`gfviz runs stop {self.id}`)")
        self._lock = lock
        try:
            self._remove_leftovers()
            self._keep_reserve()
            writer = RunWriter(self, on_failure)
            record = self.record()  # as whoever held the lock before left it
            self._write_record(
                replace(
                    record,
                    state="running",
                    reason="",
                    started=record.started or time.time(),
                    ended=None,
                    process=mine,
                )
            )
        except BaseException:
            lock.release()
            raise
        return writer

    def end_writing(self, state: Literal["finished", "failed", "stopped"] | None, reason: str) -> None:
        """For the writer: note how it ended (None leaves the record as it is) and give the lock back."""
        try:
            (self.path / _RESERVE).unlink(missing_ok=True)
            if state is not None:
                self._write_record(replace(self.record(), state=state, reason=reason, ended=time.time()))
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """For the writer: note versions, seeds, hashes (JSON values) that are needed to repeat the run."""
        record = self.record()
        self._write_record(replace(record, facts={**record.facts, **facts}))

    def backdate(self, started: float, ended: float) -> None:
        """For an import, once it is written: note when the run really took place (seconds since 1970)."""
        self._write_record(replace(self.record(), created=started, started=started, ended=ended, process=None))

    def mark_launched(self, pid: int) -> None:
        """For the launcher: note the process that will write the run, so that its early death is seen."""
        lock = WriterLock(self.path / ".lock")
        with contextlib.suppress(GfvizError):
            # Without the lock what that process has said already could be overwritten.
            if not lock.acquire():
                return
            try:
                record = self.record()
                if record.state == "queued":
                    self._write_record(replace(record, process=ProcessIdentity.of(pid)))
            finally:
                lock.release()

    def _remove_leftovers(self) -> None:
        for folder in (self.path, self.path / "graphs"):
            sweep(folder)

    def _keep_reserve(self) -> None:
        # Given back at the end, so that a disk that filled up meanwhile still takes the record of why the run ended.
        with contextlib.suppress(OSError):
            (self.path / _RESERVE).write_bytes(os.urandom(_RESERVE_BYTES))

    def reader(self) -> RunReader:
        """A read-only view of the metrics."""
        return RunReader(self)

    def status(self) -> RunStatus:
        """Shorthand for `reader().status()`."""
        with self.reader() as reader:
            return reader.status()

    def graphs(self) -> list[StepGraph]:
        """Saved graphs, by step (those without a step first)."""
        found = []
        for path in sorted((self.path / "graphs").glob("*.safetensors")):
            match = _STEP_GRAPH.fullmatch(path.name)
            found.append(StepGraph(int(match[1]), match[2], path) if match else StepGraph(None, path.stem, path))
        return sorted(found, key=lambda graph: (-1 if graph.step is None else graph.step, graph.who))

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Whole checkpoints as (step, folder), oldest first; half of one, left by a killed process, is none."""
        found = []
        if self.checkpoints_path.is_dir():
            for path in self.checkpoints_path.iterdir():
                match = _CHECKPOINT.fullmatch(path.name)
                if match and path.is_dir() and checkpoint_is_whole(path):
                    found.append((int(match[1]), path))
        return sorted(found)

    @property
    def tags(self) -> tuple[str, ...]:
        """Words the user put on the run."""
        path = self.path / "tags.json"
        if not path.is_file():
            return ()
        tags = read_json(path).get("tags")
        return tuple(text_of(tag) for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()

    def set_tags(self, tags: tuple[str, ...] | list[str]) -> None:
        """Replace the tags: at most 32 of at most 64 letters. In a file of their own: the writer cannot lose them."""
        words = sorted({tag.strip() for tag in tags if tag.strip()})
        if len(words) > 32 or any(len(word) > 64 for word in words):
            raise GfvizError("at most 32 tags of at most 64 letters each")
        atomic_write_text(self.path / "tags.json", json.dumps({"version": 1, "tags": words}) + "\n")

    def remove(self) -> None:
        """Delete the run and all in it. Raises `GfvizError` while it is alive. The folder vanishes in one step."""
        if self._seems_alive():
            raise GfvizError(f"run {self.id} is alive: stop it before it can be removed")
        lock = WriterLock(self.path / ".lock")
        if not lock.acquire():
            raise GfvizError(f"run {self.id} is being written: stop it before it can be removed")
        grave = self.path.with_name(f".removed-{self.id}-{secrets.token_hex(2)}")
        try:
            os.rename(self.path, grave)
            shutil.rmtree(grave)
        except OSError as error:
            raise GfvizError(f"cannot remove run {self.id}: {error.strerror or error}") from error
        finally:
            lock.release()

    def _seems_alive(self) -> bool:
        try:
            return self.status().alive
        except GfvizError:
            # A damaged store does not keep a run from being removed: the record and the lock still tell of a writer.
            record = self.record()
            writer = record.process if record.state in ("queued", "running") else None
            return writer is not None and bool(writer.alive())


def _acquired(lock: WriterLock) -> bool:
    # The launcher holds the lock for a moment too (`mark_launched`), just when its process comes to write.
    for _ in range(20):
        if lock.acquire():
            return True
        time.sleep(0.025)
    return False


def list_runs(root: str | Path) -> list[RunDirectory]:
    """Runs under `root`, newest first; an absent root is an empty list, what is not a run is passed over."""
    return [run for _, run in sorted(_runs_with_time(Path(root)), key=lambda item: item[0], reverse=True)]


def _runs_with_time(root: Path) -> Iterator[tuple[tuple[float, str], RunDirectory]]:
    if not root.is_dir():
        return
    for path in root.iterdir():
        if _ID.fullmatch(path.name) and (path / "run.json").is_file():
            with contextlib.suppress(GfvizError):
                run = RunDirectory.open(path)
                yield (run.record().created, run.id), run
