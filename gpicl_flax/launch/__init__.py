"""Runs sweeps and runs elsewhere: on Cloud TPU slices, GKE, Slurm, or as workers on this machine.

Options become a `plan.Plan`, which is plain data. Engines make commands and manifests of it (`actions`), which
`system.System` executes, or a dry run prints. Only `system` touches the world.
"""
