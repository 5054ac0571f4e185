"""`lesa harness` against lm-evaluation-harness's own adapter for transformers, on the tasks that come along."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers as hf

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.harness import harness, main
from lesa_jax.tasks.run import LOCAL, PRESETS, asked, check_tasks, quiet
from tests.support.devices import environment_of
from tests.support.tiny import LLAMA_LIKE
from tests.support.tokenizers import CHATML, small_tokenizer

# Writing, by each way that tasks may ask for: a stop in the middle of a text, the end token, the limit.
WRITE = """
task: write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: {until}, max_gen_toks: {limit}{more}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of 192 positions with a tokenizer that puts a token before each text."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes: dict[str, Any] = LLAMA_LIKE | {"vocab_size": 512, "initializer_range": 0.2, "max_position_embeddings": 192}
    hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).save_pretrained(folder)
    small_tokenizer(CHATML, bos="<bos>").save_pretrained(folder)
    return folder


def their_model(folder) -> Any:
    from lm_eval.models.huggingface import HFLM

    adapter: Any = HFLM
    return adapter(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def theirs(folder, tasks, include=(), **options) -> Any:
    """What `lm_eval --model hf` finds."""
    with quiet(False):
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.tasks import TaskManager

        model = their_model(folder)
        manager = TaskManager(include_defaults=False, include_path=[str(LOCAL), *map(str, include)], metadata={})
        return simple_evaluate(model=model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options)


def numbers(results):
    return {
        (task, name): value
        for task, scores in results["results"].items()
        for name, value in scores.items()
        if isinstance(value, float) and "stderr" not in name
    }


@pytest.mark.parametrize("shots", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_scores_are_those_of_the_adapter_for_transformers(folder, shots):
    """Contexts reach beyond the model's positions in some cases, more with solved examples before them."""
    options = {"num_fewshot": shots, "limit": 12}
    ours = numbers(harness(model=str(folder), tasks="lesa", batch_size=4, **options))
    expected = numbers(theirs(folder, PRESETS["lesa"], **options))
    assert len(expected) == 7
    assert ours == pytest.approx(expected, rel=1e-4)


def test_each_answer_is_that_of_the_adapter_for_transformers(folder, tmp_path):
    """Not only their means: every log-likelihood, and whether it is the likeliest."""
    from lm_eval.api.instance import Instance

    from lesa_jax.checkpoint.tokenizer import load_tokenizer
    from lesa_jax.models.load import load_model
    from lesa_jax.tasks.adapter import HarnessModel

    params, config = load_model(folder)
    ours = HarnessModel(params, config, load_tokenizer(folder), frozenset(), batch_size=3)
    other = their_model(folder)
    pairs = [("Hi you ", "there"), ("", "Good bye"), ("<bos>a", " b"), ("long " * 190, "end"), ("x", " y z" * 20)]
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    for mine, wanted in zip(ours.loglikelihood(asked), other.loglikelihood(asked), strict=True):
        assert mine[0] == pytest.approx(wanted[0], abs=1e-3)
        assert mine[1] == wanted[1]
    whole = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in ("a", "Good " * 170, "Hi, who are you?")]
    assert ours.loglikelihood_rolling(whole) == pytest.approx(other.loglikelihood_rolling(whole), abs=2e-3)


@pytest.mark.parametrize(
    ("until", "limit", "more"),
    [('["e", "\\n"]', 24, ""), ('["never"]', 9, ""), ('["never"]', 40, ", do_sample: false, temperature: 0.0")],
)
def test_what_is_written_is_what_transformers_writes(folder, tmp_path, until, limit, more):
    texts = ["Hi, who are you?", "Good", "bye " * 90, "a bot and another one", "x"]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": text, "target": "?"}) + "\n" for text in texts))
    (tmp_path / "write.yaml").write_text(WRITE.format(data=data, until=until, limit=limit, more=more))
    wanted = theirs(folder, ["write"], [tmp_path], log_samples=True)
    expected = {sample["doc"]["text"]: sample["filtered_resps"][0] for sample in wanted["samples"]["write"]}
    for text in texts:
        data.write_text(json.dumps({"text": text, "target": expected[text]}) + "\n")
        scored = harness(model=str(folder), tasks="write", include_path=tmp_path, batch_size=2)
        assert scored["results"]["write"]["exact_match,none"] == 1.0, text
    assert len(set(expected.values())) > 1


def test_the_results_are_a_table_and_a_file(folder, tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Good bye and a bot who is there with you, not here at all but somewhere else. " * 40)
    output = tmp_path / "results" / "scores.json"
    words = f"harness --model {folder} --tasks lesa_choice --limit 3 --text {text} --output {output}"
    monkeypatch.setattr("sys.argv", words.split())
    assert main() == 0
    out = capsys.readouterr().out
    assert "lesa_choice" in out
    assert "bootstrapping" not in out
    kept = json.loads(output.read_text())
    assert kept["results"]["lesa_choice"]["acc,none"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert kept["config"]["model_args"] == {"model": str(folder)}
    assert kept["configs"]["lesa_choice"]["metadata"]["text"] == str(text)


WITHOUT_TORCH = """
import importlib.util, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else found(name, package)
"""


def test_it_runs_without_torch(folder):
    """In a process that cannot import it."""
    code = f"""
from lesa_jax.harness import harness
print(harness(model={str(folder)!r}, tasks="lesa_cloze", limit=2)["n-samples"])
"""
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH + code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "'effective': 2" in run.stdout


ON_A_MESH = """
import json, sys
import jax
from lesa_jax.harness import harness
from lesa_jax.models.load import load_model
from lesa_jax.parallel.mesh import whole_mesh

for mesh in ("fsdp=4", "data=2,tensor=2"):
    params, _ = load_model(__import__("pathlib").Path(sys.argv[1]), whole_mesh(mesh))
    weight = params["model"]["layers"]["mlp"]["up_proj"]["weight"]
    shared = weight.size // weight.addressable_shards[0].data.size
    options = {"model": sys.argv[1], "limit": 6, "mesh": mesh, "include_path": sys.argv[2]}
    scores = harness(tasks="lesa,write", batch_size=4, **options)["results"]
    print(json.dumps([shared, {task: scores[task] for task in scores}]))
"""


@pytest.mark.slow
def test_devices_share_the_work_and_the_weights_and_scores_stay(folder, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": text, "target": "?"}) + "\n" for text in ("Hi, who", "Good", "bye")))
    (tmp_path / "write.yaml").write_text(WRITE.format(data=data, until="[]", limit=20, more=""))
    alone = harness(model=str(folder), tasks="lesa,write", include_path=tmp_path, limit=6, batch_size=4)
    run = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, str(folder), str(tmp_path)],
        env=environment_of(4),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for line, share in zip(run.stdout.splitlines(), (4, 2), strict=True):
        shared, results = json.loads(line)
        assert shared == share
        assert numbers({"results": results}) == pytest.approx(numbers(alone), rel=1e-4)


BAD = {
    "batch": ({"batch_size": 0}, "--batch-size 0: expected at least 1"),
    "limit": ({"limit": 0}, "--limit 0: expected at least 1"),
    "length": ({"max_length": 0}, "--max-length 0"),
    "shots": ({"num_fewshot": -1}, "--num-fewshot -1: expected 0 or more"),
    "no tasks": ({"tasks": " ,"}, "--tasks: names none"),
    "no folder": ({"include_path": LOCAL / "nowhere"}, "no such folder"),
    "folder for a file": ({"output": LOCAL}, "is a folder; name a file"),
    "no template": ({"chat": True, "model": str(demo.MODEL_DIRECTORY)}, "--chat: the model's tokenizer has no"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_end_in_one_line(case):
    options, line = BAD[case]
    with pytest.raises(InputError, match=line):
        harness(**options)


def test_an_unknown_task_is_named_with_one_like_it():
    with pytest.raises(InputError, match="--tasks: no task lesa_clozes: did you mean lesa_cloze"):
        check_tasks(["lesa_clozes"], ["lesa_cloze", "piqa"])
    assert asked("opt_deus, piqa ,lesa_text") == [*PRESETS["opt_deus"], "lesa_text"]


def test_a_way_of_writing_that_is_not_known_is_refused(folder, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"text": "Hi", "target": "?"}))
    (tmp_path / "write.yaml").write_text(WRITE.format(data=data, until="[]", limit=4, more=", num_beams: 4"))
    with pytest.raises(InputError, match="written with num_beams=4, which is not known here"):
        harness(model=str(folder), tasks="write", include_path=tmp_path)


def test_data_that_cannot_be_had_is_one_line(folder, tmp_path):
    (tmp_path / "write.yaml").write_text(WRITE.format(data=tmp_path / "nowhere.jsonl", until="[]", limit=4, more=""))
    with pytest.raises(InputError, match="--tasks write: .*nowhere.jsonl.*are the tasks' data here"):
        harness(model=str(folder), tasks="write", include_path=tmp_path)
