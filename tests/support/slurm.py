"""A SLURM cluster of one node with four GPUs that are only counted, on this machine, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import free_ports

MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "squeue") if not shutil.which(name)]
"""Programs of the Debian packages munge, slurmctld, slurmd and slurm-client that are not here."""

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
NodeName={host} CPUs=8 RealMemory=64000 Gres=gpu:4
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE
"""


class Cluster:
    """The daemons, by name, and the environment in which SLURM's commands reach them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.configuration = folder, folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for i in range(4):
            (folder / f"gpu{i}").touch()
        ports = dict(zip(("controller", "node"), free_ports(2), strict=True))
        self.configuration.write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder, **ports))
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-3]\n")
        srun = folder / "bin" / "srun"  # Snakemake's plugin calls it without SLURM_CONF
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)

    def start(self, name: str) -> None:
        """Start a daemon in the foreground."""
        commands = {
            "munged": ["--foreground", "--force", f"--key-file={self.folder}/munge.key"]
            + [f"--{kind}={self.folder}/munge.{end}" for kind, end in (("socket", "sock"), ("pid-file", "pid"))]
            + [f"--{kind}={self.folder}/munge.{end}" for kind, end in (("log-file", "log"), ("seed-file", "seed"))],
            "slurmctld": ["-D", "-f", str(self.configuration)],
            "slurmd": ["-D", "-f", str(self.configuration)],
        }
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen([name, *commands[name]], stdout=log, stderr=log)

    def stop(self, name: str) -> None:
        """End a daemon; jobs that run go on."""
        daemon = self.daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def call(self, *command: str) -> str:
        """The output of one of SLURM's commands."""
        environment = os.environ | {"SLURM_CONF": str(self.configuration)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return result.stdout

    def jobs(self, state: str) -> list[str]:
        """Identifiers of the jobs in a state that hold a GPU."""
        lines = self.call("squeue", "--noheader", f"--states={state}", "-O", "jobid:20,tres-per-job:40").splitlines()
        return [line.split()[0] for line in lines if "gpu:1" in line]


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is idle; its daemons and jobs end with the block."""
    slurm = Cluster(folder)
    try:
        for name in ("munged", "slurmctld", "slurmd"):
            slurm.start(name)
            time.sleep(1)
        limit = time.monotonic() + 120
        while "idle" not in slurm.call("sinfo", "--noheader", "-o", "%T"):
            assert time.monotonic() < limit, "\n".join(path.read_text() for path in folder.glob("*.out"))
            time.sleep(0.5)
        yield slurm
    finally:
        slurm.call("scancel", "--user", "root", "--full")
        limit = time.monotonic() + 60
        while slurm.call("squeue", "--noheader") and time.monotonic() < limit:
            time.sleep(0.5)
        for name in reversed(list(slurm.daemons)):
            slurm.stop(name)
