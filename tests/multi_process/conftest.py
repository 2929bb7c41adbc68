"""Real processes on this machine, joined by jax.distributed on the CPU backend."""

import os
import re
import socket
import subprocess
import sys

import pytest

_GLOO = re.compile(r"\[Gloo\]|peer ranks|^\s*$")  # its threads also write into each other's lines
COUNT, INDEX = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


class Job:
    """A command that runs in several processes, each with as many devices."""

    def __init__(self, arguments, num_processes, devices, more=None):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        self.processes = [
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ
                | {"XLA_FLAGS": flags, "JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
                | {COUNT: str(num_processes), INDEX: str(index)}
                | (more or {}),
            )
            for index in range(num_processes)
        ]

    def wait(self, seconds=1200):
        """Exit codes and outputs, less what the CPU's collectives print."""
        outputs = [process.communicate(timeout=seconds)[0] for process in self.processes]
        lines = [[line for line in output.splitlines() if not _GLOO.search(line)] for output in outputs]
        return [process.returncode for process in self.processes], ["\n".join(each) for each in lines]

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def start_job():
    jobs = []

    def start(arguments, num_processes=2, devices=2, more=None):
        jobs.append(Job(arguments, num_processes, devices, more))
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()
