"""The catalogue, one file for each family: every layer with every option and odd sizes, on small inputs.

Every law is tried on every case.

Params are initial params moved by 0.2 to 0.8, because weights of 1 and biases of 0 would hide a missing factor or term. Running
variances stay positive.
"""

import importlib
import pkgutil

from cases.making import Case as Case

# Ordered by name, so that each draws the same numbers in every process.
FAMILIES = [
    importlib.import_module(f"cases.{module.name}") for module in pkgutil.iter_modules(__path__) if module.name != "making"
]

CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.CASES.items()}
