"""Initializers: frozen values that draw the initial value of a parameter, ``initializer(rng, shape, dtype=None) -> tensor``.

A layer takes an initializer or its name, a key of ``NAMES``. Constant, Zeros, Ones, Uniform, Normal and TruncatedNormal take any
shape (...). VarianceScaling, XavierNormal, XavierUniform, KaimingNormal, KaimingUniform, LecunNormal, LecunUniform and Orthogonal
draw weights (out, in, *kernel), and reject shapes with fewer than two axes. Eye and Sparse draw matrices (out, in), Dirac and
DeltaOrthogonal weights of convolutions.
"""

from funcnet.initializers.elementary import Constant as Constant
from funcnet.initializers.elementary import Initializer as Initializer
from funcnet.initializers.elementary import Normal as Normal
from funcnet.initializers.elementary import Ones as Ones
from funcnet.initializers.elementary import TruncatedNormal as TruncatedNormal
from funcnet.initializers.elementary import Uniform as Uniform
from funcnet.initializers.elementary import Zeros as Zeros
from funcnet.initializers.gains import calculate_gain as calculate_gain
from funcnet.initializers.gains import fans as fans
from funcnet.initializers.names import NAMES as NAMES
from funcnet.initializers.names import initialize as initialize
from funcnet.initializers.names import known as known
from funcnet.initializers.names import weight_and_bias as weight_and_bias
from funcnet.initializers.scaled import KaimingNormal as KaimingNormal
from funcnet.initializers.scaled import KaimingUniform as KaimingUniform
from funcnet.initializers.scaled import LecunNormal as LecunNormal
from funcnet.initializers.scaled import LecunUniform as LecunUniform
from funcnet.initializers.scaled import Orthogonal as Orthogonal
from funcnet.initializers.scaled import VarianceScaling as VarianceScaling
from funcnet.initializers.scaled import XavierNormal as XavierNormal
from funcnet.initializers.scaled import XavierUniform as XavierUniform
from funcnet.initializers.structured import DeltaOrthogonal as DeltaOrthogonal
from funcnet.initializers.structured import Dirac as Dirac
from funcnet.initializers.structured import Eye as Eye
from funcnet.initializers.structured import Sparse as Sparse
