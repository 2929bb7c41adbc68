"""The command as a user meets it: output, exit codes, one line an error."""

import os
import subprocess
import sys

import pytest

from gpicl_flax.cli.main import main


def test_train_then_evaluate(quick, refused, tmp_path, capsys):
    folder = str(tmp_path / "run")
    arguments = ["train", *quick, "--workdir", folder]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "step 20/20" in captured.err
    assert "unseen tasks, digits" in captured.out and captured.out.endswith("learning_curve.png\n")
    assert (tmp_path / "run" / "learning_curve.png").stat().st_size > 10_000

    assert main(arguments) == 0  # done: only shown
    again = capsys.readouterr()
    assert "done already" in again.out and again.err == ""

    assert main(["evaluate", folder, "--num_sequences", "11"]) == 0
    assert "11 sequences" in capsys.readouterr().out

    other = [*arguments, "--gin_bindings", "Run.seed = 5"]
    refused(other, "another configuration", "Run.seed")


def test_quiet_leaves_results_alone(quick, tmp_path, capsys):
    assert main(["train", *quick, "--quiet", "--workdir", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "unseen tasks, digits" in captured.out


@pytest.mark.slow
def test_the_quickstart_says_nothing_but_what_the_package_says(tmp_path):
    """In a process of its own, where libraries that warn at import or at exit would be heard."""
    bindings = ["STEPS = 20", "optax.warmup_cosine_decay_schedule.warmup_steps = 2"]
    bindings += ["Training.checkpoint_period = 20", "MetaTest.num_sequences = 16"]
    bindings += ["TaskDistribution.task_batch_size = 4", "TaskDistribution.sequence_length = 10"]
    bindings += ["Transformer.num_layers = 1", "Transformer.model_size = 32", "Transformer.key_size = 16"]
    options = [word for binding in bindings for word in ("--gin_bindings", binding)]
    command = ["train", "--gin_file", "gin/quickstart.gin", *options, "--workdir", str(tmp_path / "run")]
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # one device, as users have it

    def gpicl(*arguments):
        command = [sys.executable, "-m", "gpicl_flax", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    result = gpicl(*command)
    first, *others = result.stderr.splitlines()
    assert first == "base dataset 'digits': 1,437 examples (0.1 MB) in device memory"
    assert others and all(line.startswith("step ") and line.endswith(" the plateau") for line in others)
    assert others[-1].startswith("step 20/20 ")
    assert result.stdout.startswith("The plateau ")
    assert gpicl("inspect", str(tmp_path / "run")).stderr == ""


def test_mistakes_are_one_line_and_exit_2(refused, gin_file, tmp_path):
    workdir = ["--workdir", str(tmp_path / "run")]
    refused(["train", "--gin_file", "gin/none.gin", *workdir], "gin/none.gin")
    refused(["train", "--gin_file", gin_file, "--gin_bindings", "Run.sed = 1", *workdir], "sed")
    refused(
        ["train", "--gin_file", gin_file, "--gin_bindings", "LSTM.hidden_size = 1", *workdir],
        "LSTM.hidden_size",
    )
    refused(["train", "--gin_file", "gin/state_size.gin", *workdir], "gpicl sweep")
    refused(["evaluate", str(tmp_path)], "not a run folder")
    missing = ["--gin_bindings", "TaskDistribution.base_dataset = 'mist'"]
    refused(["train", "--gin_file", gin_file, *missing, *workdir], "unknown base dataset 'mist'")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_line(quick, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", *quick, "--workdir", str(tmp_path / "file" / "run")]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["-m", "gpicl_flax"], ["-c", "from gpicl_flax.cli.main import run_process; run_process()"]]
)
def test_help_names_every_command(arguments):
    result = subprocess.run([sys.executable, *arguments, "--help"], capture_output=True, text=True, check=True)
    assert all(command in result.stdout for command in ("train", "evaluate", "sweep", "report", "Exit codes"))


def test_an_unknown_command_is_wrong_usage():
    result = subprocess.run([sys.executable, "-m", "gpicl_flax", "trian"], capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "trian" in result.stderr


@pytest.mark.slow
def test_models_are_listed_with_their_sizes(capsys):
    assert main(["models", "--inputs", "3072"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == "model parameters state (paper) state (exact) parts of the state settings".split()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["VSML"][:3] == ["2,512", "491,520", "1,007,696"]
    assert rows["LSTM"] == ["1,382,922", "256", "512", "hidden", "256,", "cell", "256", "hidden_size=256"]
    assert rows["OnlineSGD"][:3] == ["0", "30,730", "30,730"]
    assert "max_length=100" in rows["Transformer"]
    assert rows["Transformer"][1:7] == ["12,800", "204,800", "keys", "102,400,", "values", "102,400"]
    with pytest.raises(SystemExit, match="2"):
        main(["models", "--inputs", "0"])


@pytest.mark.slow
def test_models_that_predict_numbers_are_listed_with_their_sizes(capsys):
    assert main(["models", "--inputs", "8", "--predicts", "numbers"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    tokens = 8 + 1
    mlp, cell, read_out = tokens * 256 + 256 + 256**2 + 256, 2 * 256 * 1024 + 1024, 256 + 1
    assert rows["LSTM"][:3] == [f"{mlp + cell + read_out:,}", "256", "512"]
    assert "MLP" in rows and not {"VSML", "VSMLWithoutSymmetries", "OnlineSGD", "MAML"} & rows.keys()
