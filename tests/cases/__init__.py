"""The catalogue, one file for each family: every layer with every option and odd sizes, on small inputs.

What is entered here, every law is tried on.

Params are fresh ones moved off their first values by 0.2 to 0.8, since weights that are 1 and biases that are 0 hide a missing
factor or term; running variances stay positive by it.
"""

import importlib
import pkgutil

from cases.making import Case as Case

# In the order of their names, so that each draws the same numbers in every process.
FAMILIES = [
    importlib.import_module(f"cases.{module.name}") for module in pkgutil.iter_modules(__path__) if module.name != "making"
]

CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.CASES.items()}
