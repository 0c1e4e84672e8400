"""The hook to lm-evaluation-harness: names, refusals, what is read of its report, a task of one file run for real."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gfviz.cli import app
from gfviz.errors import GfvizError
from gfviz.fusion import benchmarks
from gfviz.fusion.benchmarks import TASKS, evaluate_benchmarks, read_scores, task_names

FAKE = {
    "__init__.py": """
import json, os
def simple_evaluate(model, tasks, task_manager, limit, batch_size, log_samples, apply_chat_template,
                    confirm_run_unsafe_code):
    with open(os.environ["FAKE_CALLS"], "w") as file:
        json.dump({"tasks": tasks, "limit": limit, "chat": apply_chat_template, "class": model.name,
                   "folders": task_manager.folders}, file)
    if "drop" in tasks:
        raise ConnectionError("Couldn't reach 'EleutherAI/drop' on the Hub")
    return {"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.25,
                                  "exact_match_stderr,strict-match": 0.1, "exact_match,flexible-extract": 0.5,
                                  "exact_match_stderr,flexible-extract": "N/A"}}}
""",
    "models/__init__.py": "",
    "models/huggingface.py": """
class HFLM:
    def __init__(self, pretrained, tokenizer, batch_size):
        self.name = type(pretrained).__name__
""",
    "tasks.py": """
class TaskManager:
    def __init__(self, include_path):
        self.folders = include_path
    def match_tasks(self, names):
        return [name for name in names if name in ("gsm8k", "drop", "humaneval")]
""",
}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that stands where lm_eval would."""
    import sys

    for name, text in FAKE.items():
        path = tmp_path / "site" / "lm_eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls.json"))
    yield tmp_path / "calls.json"
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)


def test_the_papers_eleven_have_names_of_the_harness() -> None:
    assert list(task_names(["paper"])) == [
        "bbh", "gsm8k", "math", "mmlu", "arc-c", "humaneval", "mbpp", "drop", "ifeval", "hellaswag", "theoremqa",
    ]  # fmt: skip
    assert task_names(["paper", "piqa"])["piqa"] == "piqa"
    shipped = Path(benchmarks.__file__).parent / "recipes" / "tasks" / "theoremqa.yaml"
    assert f"task: {TASKS['theoremqa']}" in shipped.read_text().splitlines()


def test_scores_come_back_and_the_model_is_the_one_asked_for(fake: Path, zoo) -> None:
    scores = evaluate_benchmarks(str(zoo["pivot"]), ["GSM8K"], limit=3, device="cpu", chat_template=True)
    assert [(s.benchmark, s.task, s.metric, s.value, s.stderr) for s in scores] == [
        ("gsm8k", "gsm8k", "exact_match (strict-match)", 0.25, 0.1),
        ("gsm8k", "gsm8k", "exact_match (flexible-extract)", 0.5, None),
    ]
    call = json.loads(fake.read_text())
    assert (call["tasks"], call["limit"], call["chat"], call["class"]) == (["gsm8k"], 3, True, "LlamaForCausalLM")
    assert call["folders"][0].endswith("tasks")
    done = CliRunner().invoke(app, ["eval", str(zoo["pivot"]), "--benchmarks", "gsm8k", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["value"] == 0.25


def test_every_refusal_is_one_line(fake: Path, zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    where = str(zoo["pivot"])
    for names, message in (
        (["nonsense"], "has no task 'nonsense'"),
        ([" "], "no benchmark was named"),
        (["humaneval", "gsm8k"], "humaneval: runs the code that the model wrote.*--run-code"),
        (["drop"], "could not run drop: is there a network"),
    ):
        with pytest.raises(GfvizError, match=message) as caught:
            evaluate_benchmarks(where, names, device="cpu")
        assert "\n" not in str(caught.value)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else real(name))
    with pytest.raises(GfvizError, match=r"pip install 'gfviz\[eval\]'"):
        evaluate_benchmarks(where, ["gsm8k"], device="cpu")
    for arguments in ([], ["--benchmarks", "gsm8k", "--data", "x.jsonl"]):
        failed = CliRunner().invoke(app, ["eval", where, *arguments])
        assert "one of the two" in str(failed.exception)


def test_a_groups_own_number_or_its_members() -> None:
    report = {
        "results": {"a": {"acc,none": 0.5, "acc_stderr,none": 0.1}, "b": {"acc,none": 1, "alias": "b"}},
        "groups": {"mmlu": {"acc,none": 0.75}},
        "group_subtasks": {"bbh": ["a", "b"], "mmlu": ["a", "b"]},
    }
    scores = read_scores({"bbh": "bbh", "mmlu": "mmlu"}, report)
    assert [(score.benchmark, score.task, score.value) for score in scores] == [
        ("bbh", "a", 0.5), ("bbh", "b", 1.0), ("mmlu", "mmlu", 0.75),
    ]  # fmt: skip
    with pytest.raises(GfvizError, match="no score for drop"):
        read_scores({"drop": "drop"}, report)


@pytest.mark.long
def test_a_task_of_one_file_with_the_real_harness(zoo, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")
    from gfviz.capture.models import load_model
    from gfviz.fusion.data import Example
    from gfviz.fusion.evaluation import likelihood
    from gfviz.fusion.tokenise import ExampleEncoder

    rows = [{"q": "Solve 1+1 now.", "wrong": " -> 7 the lazy dog", "right": " -> 2"} for _ in range(3)]
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "tiny.yaml").write_text(
        f"task: tiny_sums\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'rows.json'}\n"
        "test_split: test\noutput_type: multiple_choice\ntarget_delimiter: ''\ndoc_to_text: '{{q}}'\n"
        "doc_to_choice: ['{{wrong}}', '{{right}}']\ndoc_to_target: 1\nmetric_list:\n  - metric: acc\n"
    )
    scores = evaluate_benchmarks(str(zoo["pivot"]), ["tiny_sums"], device="cpu", task_folder=tmp_path)
    loaded = load_model(zoo["pivot"], "cpu")
    encoder = ExampleEncoder(loaded.tokenizer)
    # The harness scores the answers without EOS; at random weights the longer answer is the less likely one by far.
    answers = [Example(rows[0]["q"], rows[0][key]) for key in ("wrong", "right")]
    wrong, right = (-likelihood(loaded.model, encoder, [answer], 1).log_prob.sum() for answer in answers)
    assert right < wrong
    assert {score.metric: score.value for score in scores}["acc"] == 1.0
    # Every shipped name is one of the harness's, or comes with a file of ours.
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=[str(Path(benchmarks.__file__).parent / "recipes" / "tasks")])
    assert all(manager.match_tasks([task]) for task in TASKS.values())
