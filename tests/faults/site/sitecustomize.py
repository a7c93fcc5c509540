"""Python imports this by itself in every process that has this folder in PYTHONPATH: the driver, and Ray's workers."""

from tests.faults.points import arm_from_environment

arm_from_environment()
