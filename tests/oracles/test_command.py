"""Programs as oracles: by the contract and without it, and each way in which a program goes wrong."""

import json
import os
import stat
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pilotwave.errors import InputError, OracleFailure
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.testing.oracle_contract import OracleContract, one_of_each_media
from pilotwave.types import Status
from pilotwave_oracles.command import CommandOracleConfig
from pilotwave_oracles.xtb_water import WATER

CONTEXT = QueryContext("p0000-00")
SAMPLE = ArraySample(np.array([1.0, 2.0], dtype=np.float32))
MOLECULE = MoleculeSample(WATER, "O")
PYTHON = f"#!{sys.executable} -IS\n"

JUDGE = """
import json, sys
request = json.loads(sys.stdin.readline())
sample = request["sample"]
value = sum(sample["values"]) if sample["media"] == "array" else len(json.dumps(sample)) / 100
if sample["media"] == "image":
    value = len(open(sample["png_file"], "rb").read())
print("a banner that is no reply")
print(json.dumps({"contract": 1, "value": value, "properties": {"attempt": request["attempt"]}, "cost": 2}))
"""

STAYING = """
import json, os, sys
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    request = json.loads(line)
    values = request["sample"]["values"]
    if values == [13.0]:
        sys.exit("I do not like 13")
    reply = {"query_id": request["query_id"], "value": sum(values)}
    if values == [14.0]:
        del reply["query_id"]
    if values == [15.0]:
        reply = {"query_id": request["query_id"], "failure": {"stage": "scf", "message": "15"}, "cost": 3}
    if values == [16.0]:
        reply["properties"] = {"pid": os.getpid(), "number": number}
    print(json.dumps(reply), flush=True)
    print("something else", json.dumps(reply), flush=True)
"""


def program(folder: Path, text: str, name: str = "judge", first: str = PYTHON) -> Path:
    path = folder / name
    path.write_text(first + textwrap.dedent(text))
    path.chmod(0o755)
    return path


def configured(place: Path, **fields: Any) -> CommandOracleConfig:
    return CommandOracleConfig.model_validate(fields, context={"base_dir": place})


def shell(place: Path, script: str, **fields: Any) -> Oracle:
    """Builds an oracle of arrays that runs a line of shell and takes the last number that it prints."""
    settings: dict[str, Any] = {"accepts": ["array"], "value": {"pattern": r"value (\S+)"}, "isolation": "thread"}
    return configured(place, command=["sh", "-c", script, "sh", "{values}"], **(settings | fields)).build()


def failure_of(oracle: Oracle, sample: Sample = SAMPLE, context: QueryContext = CONTEXT) -> OracleFailure:
    with pytest.raises(OracleFailure) as caught:
        oracle.evaluate(sample, context)
    assert "\n" not in str(caught.value)
    return caught.value


class TestContractOfAProgramThatSpeaksJson(OracleContract):
    @pytest.fixture(autouse=True)
    def _program(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        program(tmp_path, JUDGE)

    def config(self) -> CommandOracleConfig:
        return configured(self.folder, command=["./judge"])

    def samples(self) -> list[Sample]:
        return list(one_of_each_media().values())


class TestContractOfAProgramThatStays(OracleContract):
    @pytest.fixture(autouse=True)
    def _program(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        program(tmp_path, STAYING)

    def config(self) -> CommandOracleConfig:
        return configured(
            self.folder,
            command=["./judge"],
            persistent=True,
            accepts=["array"],
            known={"array": [1.0, 2.0], "value": 3.0},
        )


class TestContractOfAProgramThatKnowsNothingOfUs(OracleContract):
    def config(self) -> CommandOracleConfig:
        return CommandOracleConfig(
            command=("awk", 'NF == 4 { z += $4 } END { print "total", z }', "{xyz_file}"),
            accepts=("molecule",),
            value={"pattern": r"total (\S+)"},  # type: ignore[arg-type]
            known={"mol_block": WATER, "value": 0.1064 - 2 * 0.4635},  # type: ignore[arg-type]
            unit="Å",
        )


def test_a_program_gets_what_its_placeholders_name(tmp_path: Path) -> None:
    script = program(
        tmp_path,
        """
        import json, pathlib, sys
        job = pathlib.Path("job.inp").read_text()
        print(json.dumps({"seen": {"argv": sys.argv[1:], "job": job, "stdin": sys.stdin.read()}, "e": [1, 2.5]}))
        """,
    )
    config = configured(
        tmp_path,
        command=[
            "./judge",
            "--smiles={smiles}",
            "{{smiles}}",
            "{ }",
            "{query_id}/{attempt}",
            "{mol_file}",
            "{sdf_file}",
        ],
        accepts=["molecule"],
        inputs={"job.inp": "* xyzfile {charge} {multiplicity} {xyz_file}\n%pal nprocs 1 end"},
        stdin="{smiles}\n",
        value={"path": "e[1]"},
        properties={"first": {"path": "e[0]"}},
        fidelity="test",
        keep="always",
    )
    assert config.command[0] == str(script)
    answer = config.build().evaluate(MOLECULE, QueryContext("a/b", 2))
    assert (answer.value, dict(answer.properties), answer.fidelity) == (2.5, {"first": 1.0}, "test")
    folder = tmp_path / "command_folders" / "a%2Fb.2"
    seen = json.loads((folder / "stdout.txt").read_text())["seen"]
    assert seen["stdin"] == "O\n"
    assert seen["job"] == f"* xyzfile 0 1 {folder / 'sample.xyz'}\n%pal nprocs 1 end"
    files = [str(folder / "sample.mol"), str(folder / "sample.sdf")]
    assert seen["argv"] == ["--smiles=O", "{smiles}", "{ }", "a/b/2", *files]
    assert Path(files[0]).read_text() == WATER
    assert "$$$$" in Path(files[1]).read_text()


def test_images_and_arrays_have_placeholders_of_their_own(tmp_path: Path) -> None:
    count = {"value": {"pattern": r"^(\d+)"}, "isolation": "thread"}
    image = configured(tmp_path, command=["wc", "-c", "{png_file}"], accepts=["image"], **count).build()
    assert image.evaluate(ImageSample(np.zeros((4, 4, 1), dtype=np.uint8)), CONTEXT).value > 60
    array = configured(tmp_path, command=["wc", "-c", "{npy_file}"], accepts=["array"], **count).build()
    assert array.evaluate(SAMPLE, CONTEXT).value == 128 + 8
    assert shell(tmp_path, 'echo "value $1"').evaluate(
        ArraySample(np.array([0.1], dtype=np.float32)), CONTEXT
    ).value == (pytest.approx(0.1, rel=1e-8))


def test_nothing_that_a_sample_holds_is_run_by_a_shell(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        command=["printf", "%s", "{smiles}"],
        accepts=["molecule"],
        value={"pattern": r"(\d+)$"},
        keep="always",
    )
    config.build().evaluate(MoleculeSample("", "$(touch hacked); `touch hacked` 1"), CONTEXT)
    kept = tmp_path / "command_folders" / "p0000-00.1"
    assert (kept / "stdout.txt").read_text() == "$(touch hacked); `touch hacked` 1"
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize(
    ("script", "stage", "retryable", "words"),
    [
        (
            "echo one >&2; echo 'two  words' >&2; echo >&2; exit 3",
            "program",
            False,
            "exited with code 3: two words$",
        ),
        ("exit 75", "program", True, "exited with code 75$"),
        ("kill -9 $$", "program", True, r"was killed by SIGKILL \(out of memory\?\)"),
        ("kill -SEGV $$", "program", True, "was killed by SIGSEGV"),
        ("echo nothing", "output", False, r"nothing in stdout matches"),
        ("echo value abc", "output", False, "expected a finite number as what .* got 'abc'"),
        ("echo value nan", "output", False, "expected a finite number"),
        ("echo SCF NOT CONVERGED AFTER 9 CYCLES; echo value 1", "scf", False, "wrote 'SCF NOT CONVERGED AFTER 9'"),
        ("echo SCF NOT CONVERGED AFTER 9 CYCLES >&2; exit 1", "scf", False, "wrote 'SCF NOT CONVERGED AFTER 9'"),
    ],
)
def test_how_a_program_ends_is_in_the_failure(
    tmp_path: Path, script: str, stage: str, retryable: bool, words: str
) -> None:
    failure = failure_of(shell(tmp_path, script, failures={"scf": r"SCF NOT CONVERGED AFTER \d+"}))
    assert (failure.stage, failure.retryable) == (stage, retryable)
    with pytest.raises(OracleFailure, match=words):
        raise failure


def test_the_programs_own_word_about_a_failure_counts_even_with_an_exit_code(tmp_path: Path) -> None:
    program(
        tmp_path,
        """
        import json, sys
        print(json.dumps({"failure": {"stage": "relax", "message": "a bond broke", "retryable": True}, "cost": 7}))
        sys.exit(1)
        """,
    )
    failure = failure_of(configured(tmp_path, command=["./judge"]).build())
    assert (failure.stage, str(failure), failure.retryable, failure.cost) == ("relax", "a bond broke", True, 7.0)


@pytest.mark.parametrize(
    ("text", "stage", "words"),
    [
        ("print('{\"value\": 1}'); raise SystemExit(2)", "program", "exited with code 2"),
        ("raise SystemExit('no licence')", "program", "exited with code 1: no licence"),
        ("print('value 1')", "contract", "not by the contract"),
        ("", "contract", "not by the contract"),
        ("print('{\"value\": 1,')", "contract", "not by the contract"),
        ("print('{\\n \"value\": NaN}')", "contract", "numbers must be finite"),
    ],
)
def test_a_reply_that_is_none_is_a_failure(tmp_path: Path, text: str, stage: str, words: str) -> None:
    program(tmp_path, text)
    failure = failure_of(configured(tmp_path, command=["./judge"]).build())
    assert failure.stage == stage
    assert words in str(failure)


def test_a_reply_may_be_spread_over_lines(tmp_path: Path) -> None:
    program(tmp_path, "print('{\\n  \"value\": 4\\n}')")
    assert configured(tmp_path, command=["./judge"]).build().evaluate(SAMPLE, CONTEXT).value == 4.0


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    oracle = shell(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; sleep 1000", time_limit=0.5)
    failure = failure_of(oracle)
    assert (failure.stage, failure.retryable) == ("wall-clock limit", False)
    assert is_gone(int((tmp_path / "child").read_text()))


def test_a_program_in_a_process_of_its_own_is_killed_by_the_host(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        command=["sh", "-c", f"echo $$ > {tmp_path}/child; exec sleep 1000"],
        value={"pattern": "x"},
        time_limit=2.0,
    )
    host = OracleProcess(config)
    try:
        evaluation = host.evaluate(SAMPLE, CONTEXT)
    finally:
        host.close()
    assert evaluation.status is Status.TIMED_OUT
    assert is_gone(int((tmp_path / "child").read_text()))


def test_children_that_a_program_leaves_behind_do_not_hold_the_answer_up(tmp_path: Path) -> None:
    oracle = shell(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; echo value 5", time_limit=60)
    assert oracle.evaluate(SAMPLE, CONTEXT).value == 5.0
    assert is_gone(int((tmp_path / "child").read_text()))


def test_a_flood_of_output_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("program", "command_oracle"):
        monkeypatch.setattr(f"pilotwave_oracles.{module}.OUTPUT_LIMIT", 2**20)
    failure = failure_of(shell(tmp_path, "yes"))
    assert failure.stage == "program"
    assert "more than 1 MiB" in str(failure)


def test_memory_can_be_limited(tmp_path: Path) -> None:
    program(tmp_path, "import time\ndata = b'x' * 10**9\ntime.sleep(100)")
    host = OracleProcess(configured(tmp_path, command=["./judge"], memory_limit="400 MB"))
    try:
        evaluation = host.evaluate(SAMPLE, CONTEXT)
    finally:
        host.close()
    assert evaluation.failure is not None
    assert evaluation.failure.stage == "memory limit"


def test_the_environment_is_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "s3cret")
    monkeypatch.setenv("ANOTHER_SECRET", "s3cret too")
    fields = {"environment": {"LEVEL": "7"}, "pass_environment": ["A_SECRET"], "keep": "always"}
    shell(tmp_path, "env; echo value $LEVEL", **fields).evaluate(SAMPLE, CONTEXT)
    lines = (tmp_path / "command_folders" / "p0000-00.1" / "stdout.txt").read_text().splitlines()
    assert "A_SECRET=s3cret" in lines
    assert "LEVEL=7" in lines
    assert not [line for line in lines if line.startswith(("ANOTHER_SECRET", "PYTHON"))]
    monkeypatch.delenv("A_SECRET")
    with pytest.raises(InputError, match="expected the environment variable A_SECRET"):
        shell(tmp_path, "true", **fields)


def test_folders_of_failures_are_kept_if_asked_and_named_in_the_failure(tmp_path: Path) -> None:
    script = 'echo "$1" > scratch; [ "$1" != "3" ] && echo value 1'
    oracle = shell(tmp_path, script, keep="failures", folder="kept")
    oracle.evaluate(SAMPLE, CONTEXT)
    assert not list((tmp_path / "kept").iterdir())
    failure = failure_of(oracle, ArraySample(np.array([3.0], dtype=np.float32)), QueryContext("p0000-01", 2))
    kept = tmp_path / "kept" / "p0000-01.2"
    assert str(failure).endswith(f"kept in {kept}")
    assert (kept / "scratch").read_text() == "3\n"


def test_folders_that_are_not_kept_are_gone_and_so_are_those_of_killed_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = tmp_path / f"pilotwave-command-{os.getuid()}"
    (shared / "killed").mkdir(parents=True)
    (shared / "killed" / ".lock").touch()
    first = shell(tmp_path, "pwd; echo value 1")
    first.evaluate(SAMPLE, CONTEXT)
    second = shell(tmp_path, "echo value 1")
    homes = list(shared.iterdir())
    assert len(homes) == 2
    assert [item.name for home in homes for item in home.iterdir()] == [".lock", ".lock"]
    del first, second
    assert not list(shared.iterdir())


def staying(tmp_path: Path, **fields: Any) -> Oracle:
    program(tmp_path, STAYING)
    settings = {"command": ["./judge"], "persistent": True, "accepts": ["array"], "isolation": "thread"}
    return configured(tmp_path, **(settings | fields)).build()


def test_a_program_that_stays_answers_many_questions(tmp_path: Path) -> None:
    oracle = staying(tmp_path)
    sixteen = ArraySample(np.array([16.0], dtype=np.float32))
    answers = [oracle.evaluate(sixteen, QueryContext(f"q{number}")) for number in range(3)]
    assert [answer.value for answer in answers] == [16.0] * 3
    assert [answer.properties["number"] for answer in answers] == [0, 1, 2]
    assert len({answer.properties["pid"] for answer in answers}) == 1
    pid = int(answers[0].properties["pid"])
    del oracle
    assert is_gone(pid)


@pytest.mark.parametrize(
    ("value", "stage", "words", "lives_on"),
    [
        (13.0, "program", "exited with code 1 instead of replying: I do not like 13", False),
        (14.0, "contract", "expected query_id in the reply of a persistent program", False),
        (15.0, "scf", "15", True),
    ],
)
def test_a_program_that_stays_and_fails_is_started_anew_if_need_be(
    tmp_path: Path, value: float, stage: str, words: str, lives_on: bool
) -> None:
    oracle = staying(tmp_path)
    sixteen = ArraySample(np.array([16.0], dtype=np.float32))
    before = oracle.evaluate(sixteen, CONTEXT).properties["pid"]
    failure = failure_of(oracle, ArraySample(np.array([value], dtype=np.float32)))
    assert failure.stage == stage
    assert words in str(failure)
    assert failure.retryable is (stage == "program")
    assert (oracle.evaluate(sixteen, CONTEXT).properties["pid"] == before) is lives_on


def test_a_program_that_stays_and_is_silent_is_killed_at_the_limit(tmp_path: Path) -> None:
    oracle = staying(tmp_path, command=["sh", "-c", "cat > /dev/null"], time_limit=0.5)
    assert failure_of(oracle).stage == "wall-clock limit"


def test_the_version_changes_with_whatever_changes_the_value(tmp_path: Path) -> None:
    script = program(tmp_path, JUDGE)
    (tmp_path / "data.txt").write_text("1")

    def version(**fields: Any) -> str:
        return configured(tmp_path, **({"command": ["./judge", "data.txt"]} | fields)).build().version

    first = version()
    assert version() == first == version(keep="always", memory_limit="4 GB", time_limit=5)
    assert version(environment={"A": "1"}) != first
    assert version(version="7") == "7"
    (tmp_path / "data.txt").write_text("2")
    second = version()
    script.write_text(script.read_text() + "# changed\n")
    assert len({first, second, version()}) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": []}, "at least 1 item"),
        ({"command": ["./none"]}, "expected a program, found none at .*none"),
        ({"command": ["{smiles}"]}, "expected a program first, got '{smiles}'"),
        (
            {"command": ["echo", "{smile}"]},
            r"expected one of \{smiles\}, .* got \{smile\} \(write \{\{smile\}\} for",
        ),
        (
            {"command": ["echo", "{smiles}"]},
            r"\{smiles\} is for molecule samples only, so expected accepts: \[molecule\]",
        ),
        ({"command": ["echo"], "properties": {"a": {"path": "b"}}}, "say where value stands"),
        ({"command": ["echo"], "persistent": True, "value": {"path": "b"}}, "speak the contract"),
        ({"command": ["echo", "{query_id}"], "persistent": True}, "started once, so expected no placeholders"),
        ({"command": ["echo"], "inputs": {"../x": "y"}}, "inside the program's folder"),
        ({"command": ["echo"], "value": {"path": "a"}, "failures": {"scf": "("}}, "expected a regular expression"),
        ({"command": ["echo"], "pass_environment": ["A=B"]}, "expected names of environment variables, got 'A=B'"),
        ({"command": ["echo"], "known": {"image": "none.png"}}, "expected an image file, found none at"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_at_validation(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        configured(tmp_path, **fields)


def test_a_program_that_is_not_there_or_not_executable_is_said_before_any_question(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a program 'no-such-program' on PATH, found none"):
        configured(tmp_path, command=["no-such-program"]).build()
    path = program(tmp_path, JUDGE)
    path.chmod(path.stat().st_mode & ~(stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))
    with pytest.raises(InputError, match=f"may be executed, got {path}; run: chmod"):
        configured(tmp_path, command=["./judge"]).build()


def test_a_script_without_a_first_line_that_names_its_interpreter_is_a_failure(tmp_path: Path) -> None:
    program(tmp_path, "print(1)", first="")
    failure = failure_of(configured(tmp_path, command=["./judge"]).build())
    assert failure.stage == "program"
    assert "Exec format error" in str(failure)


def is_gone(pid: int) -> bool:
    """Says whether a process has ended, waiting for a moment: the kernel takes a while to bury the killed."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False
