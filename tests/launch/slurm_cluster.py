"""A Slurm cluster of two nodes on this machine, in a folder of its own, beside any other that is here."""

import contextlib
import getpass
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
HOST = socket.gethostname().partition(".")[0]
NODES = (HOST, f"{HOST}-second")  # by name: JAX asks for the address of the first one of a step

# A job that is queued again waits as long as credentials are valid, two minutes where nothing says less.
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Cluster:
    """Its daemons are children of this process, which ends them. The folder has a short name, as sockets need."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        for name in ("state", *NODES):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        conf = _CONF.format(host=HOST, user=getpass.getuser(), folder=folder, nodes=NODES, ports=_free_ports(3))
        (folder / "slurm.conf").write_text(conf)
        self._daemons = [
            self._start("munged", "--foreground", "--force", *self._munge_files()),
            self._start("slurmctld", "-D"),
            *(self._start("slurmd", "-D", "-N", node) for node in NODES),
        ]

    def _munge_files(self) -> list[str]:
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        return [f"--{option}={self.folder}/munge.{name}" for option, name in files.items()]

    def _start(self, *words: str) -> subprocess.Popen:
        log = (self.folder / f"{words[0]}{words[-1] if words[0] == 'slurmd' else ''}.log").open("ab")
        with log:
            return subprocess.Popen(
                words,
                env=os.environ | self.environment | {"PATH": _PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def call(self, *words: str) -> str:
        """Runs a command of Slurm. Returns what it prints; raises CalledProcessError where it fails."""
        environment = os.environ | self.environment | {"PATH": _PATH}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def is_alive(self) -> bool:
        """Returns whether all daemons run."""
        return all(daemon.poll() is None for daemon in self._daemons)

    def is_up(self) -> bool:
        """Returns whether all nodes wait for jobs."""
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.call("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(NODES)
        return False

    def states(self) -> dict[int, str]:
        """Returns the states of the tasks that wait or run, by their number in the array."""
        rows = self.call("squeue", "--noheader", "--array", "--format=%K %T").splitlines()
        return {int(row.split()[0]): row.split()[1] for row in rows}

    def job(self, task: int) -> str:
        """Returns the number of a task that waits or runs, such as 17_2."""
        rows = self.call("squeue", "--noheader", "--array", "--format=%K %F").splitlines()
        [number] = {row.split()[1] for row in rows if row.split()[0] == str(task)}
        return f"{number}_{task}"

    def resume(self, node: str) -> None:
        """Brings a node back, unless it has come back by itself."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def cancel_all(self) -> None:
        """Ends all jobs."""
        self.call("scancel", f"--user={getpass.getuser()}")

    def stop(self) -> None:
        """Ends all jobs and then all daemons."""
        until = time.monotonic() + 60
        with contextlib.suppress(subprocess.CalledProcessError):
            while self.call("squeue", "--noheader") and time.monotonic() < until:
                self.cancel_all()
                time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            daemon.wait(60)
