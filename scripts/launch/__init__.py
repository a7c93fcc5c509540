"""Start a run on a cluster: `python -m scripts.launch KIND SETTINGS [submit|follow|stop|resume]`.

One settings file (example.yaml here) is rendered for each kind: `job` (a Ray cluster that is there), `kuberay` (a
RayJob on Kubernetes), `slurm` (a batch script that starts Ray over its nodes), `ssh` (`ray up` on your own machines).
"""
