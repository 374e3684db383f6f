"""The catalogue, a file for each family: every layer with every option and in odd sizes, on small inputs.

What is entered here, every law is tried on.

Params are fresh ones moved off their first values by 0.2 to 0.8, since weights that are 1 and biases that are 0 hide a missing
factor or term; running variances stay positive by it.
"""

from cases import (
    activation,
    adaptation,
    arithmetic,
    attention,
    blocks,
    combinators,
    conv,
    distances,
    embedding,
    linear,
    losses,
    noise,
    normalization,
    padding,
    pooling,
    recurrent,
    reparametrization,
    resizing,
    sampling,
    segments,
    shape,
    sharing,
    time,
    uniqueness,
)
from cases.making import Case as Case

FAMILIES = (
    activation,
    adaptation,
    arithmetic,
    attention,
    blocks,
    combinators,
    conv,
    distances,
    embedding,
    linear,
    losses,
    noise,
    normalization,
    padding,
    pooling,
    recurrent,
    reparametrization,
    resizing,
    sampling,
    segments,
    shape,
    sharing,
    time,
    uniqueness,
)

CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.CASES.items()}
